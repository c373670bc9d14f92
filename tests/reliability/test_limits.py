"""Names, arguments and places that hostile or careless users give: a clear error, and nothing of theirs is lost."""

import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

import hosnn
from hosnn.cli.main import main
from hosnn.data import arrays
from hosnn.data.arrays import read_npz, read_pt
from hosnn.data.matlab import read_mat
from hosnn.data.pickles import read_pickle
from hosnn.errors import ConfigError, DataError, HosnnError
from hosnn.files import replacing, write_text
from hosnn.names import markdown
from hosnn.recipes.variants import with_seed
from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.report.plotting import new_figure, svg
from hosnn.report.reproduction_tables import reproduction_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.grid import check_budget
from hosnn.robustness.threats import Threat
from hosnn.runtime import check_threads
from tests.evaluation.synthetic import comparison, evaluation, rich
from tests.reliability.stored import KINDS, NETWORK
from tests.training.toy import CLEAN

HOSTILE = "<script>alert(1)</script>|[x](javascript:alert(1))`*\x1b[2J\n# heading"


# names


@pytest.mark.parametrize(
    "render",
    [
        lambda: markdown_evaluation(replace(rich(), model=HOSTILE), tuple(f"{n}{HOSTILE}" for n in range(10))),
        lambda: comparison_markdown(
            compare_models([replace(evaluation("smoke", 20, 9, {"FGSM": 6}), model=name) for name in (HOSTILE, "b")])
        ),
        lambda: reproduction_markdown(replace(comparison(), title=HOSTILE, dataset=HOSTILE, network=HOSTILE)),
        lambda: markdown(HOSTILE),
    ],
    ids=["evaluation", "comparison", "reproduction", "one name"],
)
def test_names_are_no_markup(render: Callable[[], str]) -> None:
    text = render()
    assert "alert" in text
    assert "<script" not in text.replace("\\<script", "") and "](javascript" not in text.replace("]\\(", "")
    assert "\x1b" not in text and "\n# heading" not in text
    assert "</script>|" not in text, "a bar would end the table's cell"


def test_dollars_in_names_are_no_formulas() -> None:
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.set_title("$\\frac{$ and $x^$")  # as a formula it does not even parse
    axes.plot([0, 1], [0, 1], label="US$ 5 or C$ 7_")
    axes.set_yticks([0, 1], ["$a_", "b$"])
    axes.legend()
    assert svg(figure).startswith(b"<?xml")


# arguments


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: check_threads(4096), "threads got 4096"),
        (lambda: check_threads(-1), "threads got -1"),
        (lambda: with_seed(CLEAN, -1), "seed got -1"),
        (lambda: with_seed(CLEAN, 2**63), "seed got"),
        (lambda: hosnn.evaluate(NETWORK.build(), (torch.rand(2, 1, 16, 16), torch.zeros(2).long()), seed=-3), "seed"),
        (lambda: hosnn.load("a\0b"), "does not exist"),
        (lambda: hosnn.load("/dev/zero"), "holds no checkpoint"),
        (lambda: Evaluation.load("a\0b.json"), "null byte"),
        (lambda: Evaluation.load("/dev/zero"), "device"),
        (lambda: rich().save("a\0b.json"), "NUL"),
        (lambda: hosnn.Signature.load(Path("/dev/zero")), "device"),
        (lambda: check_budget(Threat.parse("l2:128"), torch.rand(2, 1, 28, 28)), "l2:128/255 if you meant"),
        (lambda: check_budget(Threat.parse("l1:800"), torch.rand(2, 1, 28, 28)), "differ by, which is 784"),
    ],
)
def test_arguments_have_limits(act: Callable[[], object], says: str) -> None:
    with pytest.raises(HosnnError, match=says):
        act()


@pytest.mark.parametrize("threat", ["l2:28", "l1:784", "linf:1", "l2:1/2/step"])
def test_every_distance_of_images_is_allowed(threat: str) -> None:
    check_budget(Threat.parse(threat), torch.rand(2, 1, 28, 28))


# files of data


def doubled(times: int) -> bytes:
    """A pickle whose dict has a key of 2^times parts, in `times` bytes or so."""
    key: tuple[object, ...] = (1,)
    for _ in range(times):
        key = (key, key)
    shared = pickle.dumps(key, protocol=2)
    return b"\x80\x02}" + shared[2:-1] + b"K\x01s."


@pytest.mark.parametrize(
    "content",
    [doubled(200), b"\x80\x02]r\xff\xff\xff\x7f.", b"\x80\x02K\x01" + b"2\x86" * 200 + b"}h\x00."],
    ids=["self-doubling tuples", "a memo of 2^31 entries", "duplicates"],
)
def test_a_pickle_cannot_ask_for_endless_work(content: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match="cannot be read as a batch"):
        read_pickle(content, 3072, "file", labels="labels")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", [14, 15], ids=["an array", "a compressed array"])
def test_a_mat_file_that_claims_4_gb_is_refused(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "train.mat"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + struct.pack("<II", kind, 2**32 - 8) + zlib.compress(b"0" * 64))
    with pytest.raises(DataError, match="ends within"):
        read_mat(path, {"X": (32, 32, 3, 4)})


GIGABYTES = 5 << 30


def bomb(path: Path, shape: tuple[int, ...], content: int, mode: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive with one array of a shape, over `content` zeros."""
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", mode) as archive, archive.open("x.npy", "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for _ in range(content >> 24):
            file.write(bytes(1 << 24))
        file.write(bytes(content & ((1 << 24) - 1)))
    return path


def claiming(path: Path, size: int) -> Path:
    """The same archive, whose directory says that its member has another size."""
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + struct.pack("<I", size) + content[at + 4 :])
    return path


def stretched(path: Path) -> Path:
    """One number that stands for gigabytes."""
    torch.save({"x": torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(GIGABYTES >> 10, 1, 32, 32)}, path)
    return path


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (
            lambda folder: bomb(folder / "a.npz", (GIGABYTES,), 100),
            "claims 5,368,709,120 bytes of .* and holds 100",
        ),
        (lambda folder: bomb(folder / "a.npz", (2**62, 2), 100), "claims .* and holds 100"),
        (lambda folder: claiming(bomb(folder / "a.npz", (100,), 100), 2**32 - 2), r"would take 4\.3 GB"),
        (lambda folder: claiming(bomb(folder / "a.pt", (100,), 100), 2**32 - 2), r"would take 4\.3 GB"),
        (lambda folder: stretched(folder / "a.pt"), r"a tensor would take 5\.4 GB"),
    ],
    ids=["a shape", "an endless shape", "a member", "a member of .pt", "a stretched tensor"],
)
def test_arrays_that_claim_gigabytes_are_refused_from_their_headers(
    write: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    path = write(tmp_path)
    tracemalloc.start()
    with pytest.raises(DataError, match=says):
        (read_npz if path.suffix == ".npz" else read_pt)(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_an_archive_that_expands_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes in the place of gigabytes, so that the test is quick."""
    monkeypatch.setattr(arrays, "SMALL", 1 << 20)
    path = bomb(tmp_path / "a.npz", (8 << 20,), 8 << 20)
    assert path.stat().st_size < 1 << 15
    with pytest.raises(DataError, match="expected at most 100 times its size"):
        read_npz(path)


def test_arrays_of_any_kind_are_read_as_before(tmp_path: Path) -> None:
    images, labels = numpy.random.default_rng(0).integers(0, 255, (20, 1, 8, 8), "u1"), numpy.arange(20) % 2
    for name, save in (("plain", numpy.savez), ("compressed", numpy.savez_compressed)):
        save(tmp_path / f"{name}.npz", x=images, y=labels)
        assert len(read_npz(tmp_path / f"{name}.npz").images["all"]) == 20
    torch.save({"x": torch.from_numpy(images), "y": torch.from_numpy(labels)}, tmp_path / "a.pt")
    assert len(read_pt(tmp_path / "a.pt").images["all"]) == 20


# places


def test_calibrate_replaces_nothing_but_signatures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    hosnn.save(NETWORK.build(), model, {"name": "toy", "dataset": "fashion-mnist-sample"})
    (tmp_path / "notes.txt").write_text("mine")
    for target in (model / "config.json", model / "model.safetensors", tmp_path / "notes.txt"):
        before = target.read_bytes()
        assert main(["calibrate", str(model), "--out", str(target)]) == 2
        assert target.read_bytes() == before
        assert "something else than a signature" in capsys.readouterr().err


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "link"
    write_text(target, "old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and len(list(tmp_path.rglob("*"))) == 3


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    kill = (
        "import os, sys\nfrom pathlib import Path\nfrom types import ModuleType\n"
        "sys.modules['hosnn'] = ModuleType('hosnn'); sys.modules['hosnn'].__path__ = [sys.argv[1]]\n"
        "from hosnn.files import replacing\n"
        "blocks = [replacing(Path(sys.argv[2], name)) for name in ('a', 'b')]\n"
        "file, folder = (block.__enter__() for block in blocks)\n"
        "file.write_text('half'); folder.mkdir()\n"
        "os._exit(9)\n"
    )
    source = Path(hosnn.__file__).parent
    subprocess.run([sys.executable, "-c", kill, str(source), str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".notes.tmp").write_text("not ours")
    with replacing(tmp_path / "mine") as mine:
        mine.write_text("half")
        write_text(tmp_path / "c", "whole")
        assert mine.exists(), "that of a living process stays"
    assert {path.name for path in tmp_path.iterdir()} == {".notes.tmp", "c", "mine"}


def test_evaluations_beyond_any_image_are_refused_before_an_attack() -> None:
    data = torch.rand(2, 1, 16, 16), torch.zeros(2).long()
    with pytest.raises(ConfigError, match="allows more than any two images"):
        hosnn.evaluate(NETWORK.build(), data, hosnn.smoke(Threat.parse("l2:128")))


@pytest.mark.parametrize("kind", ["config", "signature", "pointer"])
def test_a_pipe_is_refused_rather_than_waited_for(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind].write(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(HosnnError, match="pipe"):
        KINDS[kind].read(path)
