"""Pictures of one's own from `hosnn train` to a report, by the command line alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hosnn.cli.main import main
from hosnn.data import load_dataset
from hosnn.evaluation.ablations import training_batches
from hosnn.training.checkpoint import load

CLASSES = ("maple", "oak", "pine")
SIZE = (20, 16)  # width, height: neither square nor that of any data set here
ONCE = ("--set", "optim.epochs=1", "--set", "optim.batch_size=10")
ALL_ONCE = (*ONCE, "--set", "start.optim.epochs=1", "--set", "start.optim.batch_size=10")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hosnn(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOSNN_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def write_pictures(root: Path, count: int = 20) -> Path:
    """`count` noisy pictures a class, each class in its own colour."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 128, (SIZE[1], SIZE[0], 3))
            pixels[:, :, label] += 127
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def arrays(root: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    paths = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((root / name).iterdir())]
    return np.stack([np.asarray(Image.open(path)) for path, _ in paths]), np.array([label for _, label in paths])


def test_from_a_folder_of_pictures_to_a_report(hosnn: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves")
    data = load_dataset("leaves")
    run = Path("runs/demo-lif-clean-leaves")
    assert hosnn("train", "demo:lif_clean", "--data", "leaves", *ALL_ONCE)[0] == 0
    config = load(run).config
    provenance: Any = config["provenance"]
    assert provenance["dataset"] == "own:leaves" and provenance["dataset_sha256"] == data.sha256
    assert provenance["dataset_title"] == "leaves (unverified)"
    assert provenance["dataset_source"] == data.source  # by which they are found again
    network: Any = load(run).network
    assert network.blueprint.image == (3, 16, 20)
    assert network(torch.rand(2, 3, 16, 20)).shape == (2, 3)

    status, out, _ = hosnn("calibrate", run, "--out", "leaves.safetensors")
    assert status == 0 and "42 images of leaves (unverified) (train)" in out
    assert Path("leaves.safetensors").is_file()

    status, out, _ = hosnn("evaluate", run, "--protocol", "smoke")
    assert status in (0, 3, 4)
    assert "12 images of leaves (unverified)" in " ".join(out.split())
    stem = run / "evaluations" / "smoke"
    result = json.loads(stem.with_suffix(".json").read_text())
    assert (result["dataset"], result["dataset_sha256"]) == ("leaves (unverified)", data.sha256)
    assert result["index"] == data.test.for_evaluation().index.tolist()  # sorted by class, so mixed
    for ending in (".md", ".html"):
        assert "leaves (unverified)" in stem.with_suffix(ending).read_text()

    # The TA-LIF twin starts from the same network, on the same data.
    assert hosnn("train", "demo:homeostatic_clean", "--data", "leaves", *ALL_ONCE)[0] == 0
    assert Path("runs/demo-homeostatic-clean-leaves").is_dir()


def test_a_trained_network_finds_its_data_again_or_says_what_to_do(hosnn: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves")
    assert hosnn("train", "fashion_mnist:start", "--data", "leaves", *ONCE)[0] == 0
    (run,) = Path("runs").glob("*-leaves")
    shutil.move("leaves", "elsewhere")
    for verb in ("calibrate", "evaluate"):
        status, out, err = hosnn(verb, run)
        assert status == 2
        assert f"data of your own at {tmp_path / 'leaves'}, which is not there" in " ".join((out + err).split())
    status, out, _ = hosnn("evaluate", run, "--data", "elsewhere", "--json")
    assert status in (0, 3, 4)
    result = json.loads(out)
    assert result["dataset"] == "elsewhere (unverified)"
    write_pictures(tmp_path / "leaves")
    assert hosnn("evaluate", run, "--json")[0] in (0, 3, 4)
    again = json.loads((run / "evaluations" / "smoke.json").read_text())
    assert again["dataset_sha256"] == result["dataset_sha256"] and again["clean"] == result["clean"]


def as_npz(root: Path) -> str:
    x, y = arrays(root)
    np.savez(root.parent / "mine.npz", x=x, y=y)
    return "mine.npz"


def as_pt(root: Path) -> str:
    torch.save(tuple(map(torch.from_numpy, arrays(root))), root.parent / "mine.pt")
    return "mine.pt"


def as_function(root: Path) -> str:
    (root.parent / "mine.py").write_text(
        "import numpy as np\n\ndef leaves():\n    rng = np.random.default_rng(0)\n"
        "    return rng.random((60, 3, 16, 20)), np.eye(3)[np.arange(60) % 3]\n"
    )
    return "mine.py:leaves"


@pytest.mark.parametrize("make", [as_npz, as_pt, as_function])
def test_data_of_every_kind_trains_and_is_evaluated(hosnn: Run, tmp_path: Path, make: Callable[[Path], str]) -> None:
    source = make(write_pictures(tmp_path / "leaves"))
    assert hosnn("train", "fashion_mnist:start", "--data", source, *ONCE)[0] == 0
    (run,) = Path("runs").iterdir()
    status, out, _ = hosnn("evaluate", run, "--json")
    assert status in (0, 3, 4)
    assert json.loads(out)["dataset"].endswith("(unverified)")


@pytest.mark.parametrize("recipe", ["demo:lif_fgsm", "demo:homeostatic_fgsm"])
def test_frames_of_ones_own_train_and_are_evaluated_with_every_recipe(hosnn: Run, recipe: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, (60, 3, 2, 16, 20))
    np.savez("events.npz", x=x.astype(np.float32), y=np.arange(60) % 3)
    assert hosnn("train", recipe, "--data", "events.npz", *ALL_ONCE)[0] == 0
    run = Path("runs") / f"{recipe.replace(':', '-').replace('_', '-')}-events"
    assert load(run).network.steps == 3
    for threat in ("linf:8/255", "linf:8/255/step"):  # the same: each frame is perturbed on its own
        status, out, err = hosnn("evaluate", run, "--protocol", "smoke", "--samples", 6, "--threat", threat, "--json")
        assert status in (0, 3, 4), out + err
        assert json.loads(out)["dataset"] == "events (unverified)"


def no_picture(root: Path) -> None:
    (root / "oak" / "3.png").write_bytes(b"please log in")


def another_size(root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "oak" / "3.png")


def no_pictures(root: Path) -> None:
    shutil.rmtree(root / "oak")
    (root / "oak").mkdir()


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no picture": (no_picture, "oak/3.png: the picture does not decode"),
    "another size": (another_size, "oak/3.png: the picture is 9x9, expected 20x16"),
    "a class without pictures": (no_pictures, "oak has no pictures"),
    "not there": (shutil.rmtree, "there is no file or folder"),
}


@pytest.mark.parametrize("verb", ["train", "sweep"])
@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT)
def test_a_bad_folder_is_refused_before_anything_is_trained(
    hosnn: Run, tmp_path: Path, verb: str, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(write_pictures(tmp_path / "leaves", count=5))
    status, out, err = hosnn(verb, "demo:lif_clean", "--data", tmp_path / "leaves")
    assert status == 2
    assert says in " ".join((out + err).split())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_data_folder_is_for_named_sets_only(hosnn: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves", count=3)
    status, out, err = hosnn("train", "demo:lif_clean", "--data", "./leaves", "--data-folder", tmp_path)
    assert status == 2 and "leave one out" in out + err


def test_a_network_for_other_images_says_so(hosnn: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves")
    assert hosnn("train", "fashion_mnist:start", "--data", "leaves", *ONCE)[0] == 0
    (run,) = Path("runs").iterdir()
    for verb in ("calibrate", "evaluate"):
        status, out, err = hosnn(verb, run, "--data", "fashion-mnist-sample")
        assert status == 2
        assert "has images (1, 28, 28) but the network takes (3, 16, 20)" in " ".join((out + err).split())


def test_other_images_than_those_trained_on_are_refused(hosnn: Run, tmp_path: Path) -> None:
    """One picture more moves the others between the splits."""
    root = write_pictures(tmp_path / "leaves")
    assert hosnn("train", "fashion_mnist:start", "--data", "leaves", *ONCE)[0] == 0
    (run,) = Path("runs").glob("*-leaves")
    Image.new("RGB", SIZE).save(root / "maple" / "000.png")
    for verb in ("evaluate", "inspect", "calibrate"):
        status, out, err = hosnn(verb, run)
        assert status == 2 and "training images may be among the test images" in " ".join((out + err).split())
    (root / "maple" / "000.png").unlink()
    assert hosnn("calibrate", run)[0] == 0


def test_more_classes_than_the_network_has_are_refused(hosnn: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves")
    assert hosnn("train", "fashion_mnist:start", "--data", "leaves", *ONCE)[0] == 0
    (run,) = Path("runs").glob("*-leaves")
    shutil.copytree("leaves", "more")
    shutil.copytree("leaves/oak", "more/elm")
    status, out, err = hosnn("inspect", run, "--data", "more")
    assert status == 2 and "4 classes but the network tells 3 apart" in " ".join((out + err).split())


def test_statistics_of_sorted_data_are_of_all_classes(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(3), 600)
    np.savez(
        "sorted.npz", x=np.zeros((1800, 1, 8, 8), np.uint8) + labels[:, None, None, None].astype(np.uint8), y=labels
    )
    batches = training_batches(load_dataset("sorted.npz"), count=300)
    assert len(set(torch.cat(batches).flatten().tolist())) == 3


@pytest.mark.parametrize("verb", ["calibrate", "inspect", "ablate"])
def test_nothing_is_measured_in_another_precision(hosnn: Run, verb: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "leaves")
    assert hosnn("train", "fashion_mnist:start", "--data", "leaves", *ONCE)[0] == 0
    (run,) = Path("runs").glob("*-leaves")
    status, out, err = hosnn(verb, run, "--precision", "bf16-mixed")
    assert status == 2 and "32-true" in out + err


def test_recordings_can_be_ablated(hosnn: Run) -> None:
    x = np.random.default_rng(0).integers(0, 2, (60, 3, 2, 16, 20))
    np.savez("events.npz", x=x.astype(np.float32), y=np.arange(60) % 3)
    assert hosnn("train", "demo:homeostatic_fgsm", "--data", "events.npz", *ALL_ONCE)[0] == 0
    run = Path("runs/demo-homeostatic-fgsm-events")
    status, out, err = hosnn("ablate", run, "--samples", 6)
    assert status == 0, out + err
    found = json.loads((run / "evaluations" / "ablations.json").read_text())
    assert found["corruptions"] == found["steps"] == {} and any("recordings" in text for text in found["left_out"])


def test_the_list_of_recipes_as_json(hosnn: Run) -> None:
    status, out, _ = hosnn("train", "--json")
    assert status == 0 and "demo:lif_clean" in json.loads(out)
