"""Stored work is never thrown away unasked: what cannot be used is kept under another name, and a line says why."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from huggingface_hub.errors import LocalEntryNotFoundError

import hosnn
from hosnn.cli.main import main
from hosnn.cli.target import load_target, results_folder
from hosnn.data import fashion_mnist_sample
from hosnn.errors import CheckpointError, ConfigError, ReusedWarning, SetAsideWarning
from hosnn.evaluation import journal as journal_module
from hosnn.evaluation.ablations import Ablations
from hosnn.evaluation.journal import Journal, journal_path, journals, remove_journals
from hosnn.evaluation.store import save_ablations, save_result, stored_or_fresh
from hosnn.nn.lenet import LeNet
from hosnn.protocols.builtin import protocol_by_name
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.training import models
from tests.evaluation.synthetic import evaluation
from tests.reliability.stored import NETWORK

VERSIONS = {"hosnn": "1.0", "torch": "2.0"}
IDENTITY: dict[str, Any] = {"protocol": "smoke", "seed": 0, "model": "a" * 64, "versions": VERSIONS}
OTHER = IDENTITY | {"model": "b" * 64}
OUTCOME = {"predictions": [3, 2, -1], "tied": [1], "seconds": 0.5, "forward": 60, "backward": 60}


def blocks(journal: Journal) -> list[int]:
    return [block for block in range(9) if journal.get("PGD", block, 3) is not None]


def filled(path: Path, identity: dict[str, Any], *numbers: int) -> Journal:
    journal = Journal(path, identity)
    for number in numbers:
        journal.put("PGD", number, OUTCOME)
    return journal


# journals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "b" * 64}, "because the weights are others; they"),
        ({"seed": 1}, "because the seed is another; they"),
        ({"versions": VERSIONS | {"torch": "2.1"}}, "because torch was 2.0, now 2.1; they"),
        ({"settings": "new"}, "because the protocol's settings are others; they"),
        ({"structure": "new", "device": "cuda"}, "the device is another; the network is another"),
        ({"later": 1}, "because later differs"),
    ],
)
def test_a_journal_that_cannot_be_used_is_kept_and_the_reason_said(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = journal_path(tmp_path, "smoke")
    filled(path, IDENTITY, 0, 1)
    content = path.read_bytes()
    with pytest.warns(SetAsideWarning, match=f"holds 2 finished blocks .*{reason}"):
        journal = Journal(path, IDENTITY | change)
    assert blocks(journal) == []
    assert (tmp_path / "smoke.partial.kept-1.jsonl").read_bytes() == content


def test_a_journal_with_a_damaged_first_line_is_kept(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "smoke")
    filled(path, IDENTITY, 0)
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.warns(SetAsideWarning, match="the line that says which evaluation they are of is damaged"):
        Journal(path, IDENTITY)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_journal_in_which_nothing_is_finished_makes_room(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "smoke")
    filled(path, IDENTITY)
    Journal(path, OTHER)
    assert list(tmp_path.iterdir()) == [path]


def test_two_evaluations_that_take_turns_both_continue(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "smoke")
    filled(path, IDENTITY, 0, 1)
    with pytest.warns(SetAsideWarning):
        filled(path, OTHER, 4)
    with pytest.warns(SetAsideWarning):
        resumed = filled(path, IDENTITY, 2)
    assert blocks(resumed) == [0, 1, 2] and resumed.seconds == 1.0
    remove_journals(path)
    (left,) = journals(path)
    assert blocks(Journal(path, OTHER)) == [4] and left.name == "smoke.partial.kept-2.jsonl"


def test_two_processes_with_one_journal_do_not_take_each_others_blocks(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "smoke")
    first = filled(path, IDENTITY, 0)
    with pytest.warns(SetAsideWarning):
        second = filled(path, OTHER, 4)
    first.put("PGD", 1, OUTCOME)
    second.put("PGD", 5, OUTCOME)
    first.put("PGD", 2, OUTCOME)
    assert blocks(Journal(path, OTHER)) == [4, 5]
    with pytest.warns(SetAsideWarning):
        assert blocks(Journal(path, IDENTITY)) == [0, 1, 2]


def test_a_journal_that_another_process_removed_begins_again_with_its_first_line(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "smoke")
    journal = filled(path, IDENTITY, 0)
    remove_journals(path)
    journal.put("PGD", 1, OUTCOME)
    assert blocks(Journal(path, IDENTITY)) == [1]


@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_a_journal_that_another_process_takes_away_at_the_last_instant(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a block's file was chosen, and before the block is written."""
    path = journal_path(tmp_path, "smoke")
    journal = filled(path, IDENTITY, 0)
    own_file, first_time = Journal._own_file, [True]

    def chosen_and_taken(self: Journal, path: Path) -> Path:
        chosen = own_file(self, path)
        if first_time:
            first_time.clear()
            chosen.rename(tmp_path / "smoke.partial.kept-1.jsonl") if change == "renamed" else chosen.unlink()
        return chosen

    monkeypatch.setattr(Journal, "_own_file", chosen_and_taken)
    journal.put("PGD", 1, OUTCOME)
    assert blocks(Journal(path, IDENTITY)) == ([1] if change == "removed" else [0, 1])


def test_a_journal_that_is_gone_when_it_is_read_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = journal_path(tmp_path, "smoke")
    filled(path, OTHER, 0)
    room, first_time = journal_module._make_room, [True]

    def gone(path: Path, header: bytes) -> None:
        if first_time:
            first_time.clear()
            path.unlink()
            raise FileNotFoundError(path)
        room(path, header)

    monkeypatch.setattr(journal_module, "_make_room", gone)
    assert blocks(Journal(path, IDENTITY)) == [] and path.exists()


def test_a_block_of_another_evaluation_does_not_count(tmp_path: Path) -> None:
    path, other = journal_path(tmp_path, "smoke"), journal_path(tmp_path / "other", "smoke")
    filled(path, IDENTITY, 0)
    other.parent.mkdir()
    filled(other, OTHER, 1)
    with path.open("ab") as file:
        file.write(other.read_bytes().splitlines(keepends=True)[1])
    assert blocks(Journal(path, IDENTITY)) == [0]


def test_shares_of_another_evaluation_stay_when_the_journal_is_removed(tmp_path: Path) -> None:
    whole, own, other = (journal_path(tmp_path, "smoke", shard) for shard in (None, (0, 2), (1, 2)))
    filled(own, IDENTITY, 0)
    filled(other, OTHER, 1)
    filled(whole, IDENTITY, 2)
    remove_journals(whole)
    assert list(tmp_path.iterdir()) == [other]


# results


def result() -> Evaluation:
    return evaluation("smoke", 20, 9, {"FGSM": 6})


def save_with_page(value: Evaluation, path: Path) -> None:
    save_result(value, path)
    path.with_suffix(".md").write_text(value.model_sha256)


CHANGES: list[tuple[Callable[[Evaluation], Evaluation], str]] = [
    (lambda it: replace(it, model_sha256="ef" * 32), "another model"),
    (lambda it: replace(it, dataset_sha256="ef" * 32), "another data set"),
    (lambda it: replace(it, settings="1" * 64), "another protocol or version of it"),
    (lambda it: replace(it, seed=3), "another seed"),
    (lambda it: replace(it, versions={"torch": "1.0"}), "another version of hosnn or torch"),
    (lambda it: replace(it, index=tuple(range(7, 27))), "another choice of images"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_result_of_something_else_is_kept(
    change: Callable[[Evaluation], Evaluation], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "smoke.json"
    for number, earlier in enumerate((change(result()), change(result())), 1):
        save_with_page(earlier, path)
        with pytest.warns(SetAsideWarning, match=f"{said}.* it is kept in .*smoke.kept-{number}.json"):
            save_with_page(result(), path)
        assert Evaluation.load(tmp_path / f"smoke.kept-{number}.json") == earlier
        assert (tmp_path / f"smoke.kept-{number}.md").read_text() == earlier.model_sha256
        path.unlink()
    assert not list(tmp_path.glob("*.html"))


def test_a_result_of_the_same_request_is_replaced(tmp_path: Path) -> None:
    save_result(result(), tmp_path / "smoke.json")
    again = replace(result(), seconds=99.0, machine={"cores": 1})
    save_result(again, tmp_path / "smoke.json")
    assert [path.name for path in tmp_path.iterdir()] == ["smoke.json"]
    assert Evaluation.load(tmp_path / "smoke.json") == again


def test_a_damaged_result_is_kept(tmp_path: Path) -> None:
    (tmp_path / "smoke.json").write_text("{")
    with pytest.warns(SetAsideWarning, match="damaged"):
        save_result(result(), tmp_path / "smoke.json")
    assert (tmp_path / "smoke.kept-1.json").read_text() == "{"


def test_a_result_that_cannot_be_kept_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smoke.json").write_text("{")

    def refused(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(ConfigError, match="cannot write"):
        save_result(result(), tmp_path / "smoke.json")
    assert (tmp_path / "smoke.json").read_text() == "{"


def test_ablations_of_another_network_are_kept(tmp_path: Path) -> None:
    compared = compare_models([replace(result(), model=name) for name in ("as trained", "k = 0")])
    ablations = Ablations(
        model="ta",
        compared=compared,
        rates={"as trained": {"layer": 0.5}},
        corruptions={},
        steps={},
        left_out=("one: reason",),
        seed=0,
        versions={},
        machine={},
    )
    path = tmp_path / "ablations.json"
    save_ablations(ablations, path)
    save_ablations(replace(ablations, machine={"cores": 7}), path)
    assert [file.name for file in tmp_path.iterdir()] == ["ablations.json"]
    with pytest.warns(SetAsideWarning, match="ablations of another network"):
        save_ablations(replace(ablations, rates={"as trained": {"layer": 0.25}}), path)
    assert json.loads((tmp_path / "ablations.kept-1.json").read_text())["rates"] == {"as trained": {"layer": 0.5}}


def test_the_command_says_in_a_line_what_it_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An evaluation of one network, then of another into the same folder: journal and result of the first are kept."""
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\nfrom torch import nn\n"
        "def network(seed):\n"
        "    with torch.random.fork_rng():\n"
        "        torch.manual_seed(seed)\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
        "def one(): return network(1)\n"
        "def two(): return network(2)\n"
    )
    command = ["--data", "fashion-mnist-sample", "--samples", "20", "--attacks-only", "--out", str(tmp_path / "out")]
    assert main(["evaluate", f"{own}:one", *command]) == 0
    path = tmp_path / "out" / "smoke-attacks-only-n20.json"
    first = Evaluation.load(path)
    filled(journal_path(path.parent, path.stem), IDENTITY, 0)
    capsys.readouterr()
    assert main(["evaluate", f"{own}:two", *command]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note" in said and "the weights are others" in said and "held a result of another model; it is kept" in said
    assert Evaluation.load(path.with_name(f"{path.stem}.kept-1.json")) == first
    kept = {file.name.removeprefix(path.stem) for file in path.parent.iterdir()}
    assert kept == {
        *(".json", ".md", ".html", ".kept-1.json", ".kept-1.md", ".kept-1.html", ".partial.kept-1.jsonl"),
    }


# folders


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n")
    return folder / "model.py"


def folder_for(source: str) -> Path:
    """Where `hosnn evaluate SOURCE` puts its results."""
    return results_folder(load_target(Path(source), "fashion-mnist-sample", None), None)


def test_functions_of_one_name_in_files_of_one_name_have_folders_of_their_own(here: Path) -> None:
    sources = [f"{own_file(here / name)}:net" for name in "ab"]
    folders = [folder_for(source) for source in sources]
    assert folders[0] == Path("runs/model-net/evaluations") and len(set(folders)) == 2
    assert [folder_for(source) for source in sources] == folders, "the same again"
    assert folder_for("a/model.py:net") == folders[0], "however the file is named"


def test_results_move_with_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_file(here / "before" / "a")
    monkeypatch.chdir(here / "before")
    assert folder_for("a/model.py:net") == Path("runs/model-net/evaluations")
    (here / "before").rename(here / "after")
    monkeypatch.chdir(here / "after")
    assert folder_for("a/model.py:net") == Path("runs/model-net/evaluations")


def test_a_folder_of_before_is_taken_over_and_that_of_a_run_is_not(here: Path) -> None:
    source = f"{own_file(here / 'a')}:net"
    (here / "runs" / "model-net" / "evaluations").mkdir(parents=True)
    assert folder_for(source) == Path("runs/model-net/evaluations")
    (here / "runs" / "model-net" / "owner.txt").unlink()
    (here / "runs" / "model-net" / "checkpoints").mkdir()
    assert folder_for(source).parent.name.startswith("model-net-")


def test_hub_models_of_one_name_have_folders_of_their_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = LeNet(channels=(1, 2), hidden=4).build()
    hosnn.save(network, here / "downloaded", {"name": "snn", "dataset": "fashion-mnist-sample"})
    monkeypatch.setattr(models, "snapshot_download", lambda *_, **__: str(here / "downloaded"))
    folders = [folder_for(source) for source in ("one/snn", "two/snn", "one/snn")]
    assert folders[0] == folders[2] == Path("runs/snn/evaluations") and folders[1] != folders[0]


# the Hub


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the Hub's cache has of a/snn, whose repository also has a README.md and an extra.json that it lacks."""
    storage = tmp_path / "cache" / "models--a--snn"
    snapshot = storage / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    hosnn.save(NETWORK.build(), snapshot)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("0" * 40)
    names = ("config.json", "model.safetensors", "README.md", "extra.json", "sub/model.safetensors")
    entry = TreeCacheEntry(size=1, blob_id="0" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None)
    write_tree_cache(str(storage), "0" * 40, dict.fromkeys(names, entry))
    offline = partial(snapshot_download, cache_dir=tmp_path / "cache", local_files_only=True)
    monkeypatch.setattr(models, "snapshot_download", offline)
    return snapshot


def test_offline_only_the_files_that_are_needed_are_asked_of_the_cache(cached: Path) -> None:
    with pytest.raises(LocalEntryNotFoundError, match="incomplete"):
        snapshot_download("a/snn", cache_dir=cached.parents[2], local_files_only=True)
    assert hosnn.load("a/snn").blueprint == NETWORK


def test_offline_a_file_that_is_needed_and_missing_is_named(cached: Path) -> None:
    (cached / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        hosnn.load("a/snn")


def test_a_stored_result_of_another_version_is_used_and_said_to_be_one(tmp_path: Path) -> None:
    data, path = fashion_mnist_sample(), tmp_path / "smoke.json"
    network, protocol = LeNet().build().eval(), protocol_by_name("smoke", DEFAULT_THREAT).resized(10)
    first = stored_or_fresh(network, data, protocol, path, name="net", seed=0, threads=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stored_or_fresh(network, data, protocol, path, name="net", seed=0) == first
    older = replace(first, versions={**first.versions, "torch": "1.0"})
    older.save(path)
    with pytest.warns(ReusedWarning, match=r"smoke.json was measured with torch 1.0 and is used as it is"):
        assert stored_or_fresh(network, data, protocol, path, name="net", seed=0) == older
