"""`hosnn sweep` and `hosnn evaluate --shards` without Ray: its jobs are run here, one after the other."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosnn.cli import evaluate as evaluate_verb
from hosnn.cli import sweep as sweep_verb
from hosnn.cli.main import main
from hosnn.cli.request import EvaluationRequest, _absolute
from hosnn.cli.sweep import jobs
from hosnn.cluster import work
from hosnn.cluster.jobs import Job, Stopped
from hosnn.cluster.record import Sweep
from hosnn.cluster.trials import trials
from hosnn.cluster.work import Conditions
from hosnn.data.own import absolute_source
from hosnn.errors import ConfigError
from hosnn.evaluation.journal import journal_path, journals
from hosnn.results.evaluation import Evaluation
from hosnn.runtime import Hardware
from hosnn.training.experiment import Experiment
from hosnn.training.pipeline import run
from tests.cluster.without_ray import DONE, one_after_the_other
from tests.reliability.commands import stored
from tests.training.toy import CLEAN, ROBUST, cpu, toy_data

CLEAN_RECIPE, ROBUST_RECIPE = "tests.cli.test_sweep:clean", "tests.cli.test_sweep:robust"


def clean() -> Experiment:
    return CLEAN


def robust() -> Experiment:
    return ROBUST


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_verb, "run_jobs", one_after_the_other)
    monkeypatch.setattr(evaluate_verb, "run_jobs", one_after_the_other)
    monkeypatch.setattr(work, "load_dataset", lambda name, folder: toy_data())
    work._data.cache_clear()
    DONE.clear()


def stamps(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}


def test_a_sweep_trains_evaluates_records_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["sweep", ROBUST_RECIPE, "--grid", "optim.lr=0.1,0.05", "--seeds", "0", "1", "--runs", str(tmp_path)]
    command += ["--protocol", "smoke", "--samples", "8"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "robust-lr0.05-seed1 validation accuracy" in printed and " ± " in printed
    assert DONE[:2] == ["start: clean", "start: clean-seed1"] and len(DONE) == len(set(DONE)) == 6
    sweep = Sweep.load(tmp_path / "sweep" / "sweep.json")
    assert sweep.count("finished") == 4 == len({entry.identity for entry in sweep.trials})
    for entry in sweep.trials:
        own = "smoke-n8-seed1.json" if entry.seed else "smoke-n8.json"
        assert Path(entry.folder, "evaluations", own).exists(), "where `hosnn evaluate` would look for it"
    assert "optim.lr=0.1 | 0, 1 |" in (tmp_path / "sweep" / "sweep.md").read_text()
    before = stamps(tmp_path)
    assert main([*command, "--json"]) == 0
    assert Sweep.from_json(json.loads(capsys.readouterr().out)) == sweep
    assert stamps(tmp_path) == before


def test_a_sweep_on_validation_images_never_looks_at_the_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(work, "load_dataset", lambda name, folder: replace(toy_data(), test=None))  # type: ignore[arg-type]
    command = ["sweep", CLEAN_RECIPE, "--runs", str(tmp_path), "--protocol", "smoke"]
    assert main([*command, "--split", "validation"]) == 0
    assert "16 validation images" in " ".join(capsys.readouterr().out.split())
    assert "smoke, linf:8/255, 16 validation images" in (tmp_path / "sweep" / "sweep.md").read_text()
    sweep = Sweep.load(tmp_path / "sweep" / "sweep.json")
    (entry,) = sweep.trials
    stored = Evaluation.load(Path(entry.folder, "evaluations", "smoke-validation.json"))
    assert sweep.split == "validation" and stored.dataset == "toy (unverified), validation images"
    assert stored.index == tuple(toy_data().validation.index.tolist())
    assert entry.result is not None and entry.result.cpu_seconds > 0
    before = stamps(tmp_path)
    monkeypatch.setattr(work, "load_dataset", lambda name, folder: toy_data())
    work._data.cache_clear()
    assert main(command) == 0
    assert Sweep.load(tmp_path / "sweep" / "sweep.json").split == "test"
    assert {path.name for path in Path(entry.folder, "evaluations").glob("*.json")} == {
        "smoke.json",
        "smoke-validation.json",
    }
    assert stamps(tmp_path) == before, "evaluated again, not trained again"
    assert main([*command, "--split", "train"]) == 2
    assert "--split got 'train'; expected test, or validation" in " ".join(capsys.readouterr().err.split())


def test_a_file_of_before_is_of_test_images_and_recorded_no_processor_time(tmp_path: Path):
    assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    del content["split"], content["trials"][0]["result"]["cpu_seconds"]
    sweep = Sweep.from_json(content)
    assert sweep.split == "test" and sweep.trials[0].result is not None
    assert sweep.trials[0].result.cpu_seconds == 0


def test_what_fails_is_listed_and_the_rest_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(replace(CLEAN, seed=1, name="robust-lr0.05"), toy_data(), tmp_path, cpu())  # another experiment is in the way
    assert main(["sweep", ROBUST_RECIPE, "--grid", "optim.lr=0.1,0.05", "--runs", str(tmp_path)]) == 2
    assert "failed: robust-lr0.05:" in capsys.readouterr().out
    good, bad = Sweep.load(tmp_path / "sweep" / "sweep.json").trials
    assert (good.state, bad.state) == ("finished", "failed")
    assert "holds another experiment" in bad.error


def test_when_a_start_fails_what_needs_it_says_so(tmp_path: Path):
    run(replace(CLEAN, seed=1), toy_data(), tmp_path, cpu())
    assert main(["sweep", ROBUST_RECIPE, "--seeds", "0", "2", "--runs", str(tmp_path)]) == 2
    first, second = Sweep.load(tmp_path / "sweep" / "sweep.json").trials
    assert "start: clean, which it starts from, failed: " in first.error and second.state == "finished"


def test_a_sweep_whose_time_is_up_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["sweep", ROBUST_RECIPE, "--runs", str(tmp_path)]
    assert main([*command, "--max-time", "0.00001"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "0 of 1 trials are finished; the same command resumes from there" in said
    assert main(command) == 0


def test_what_was_finished_and_is_gone_does_not_count_while_it_is_not_done_again(tmp_path: Path):
    command = ["sweep", ROBUST_RECIPE, "--runs", str(tmp_path)]
    assert main(command) == 0
    (tmp_path / "robust").rename(tmp_path / "elsewhere")
    assert main([*command, "--max-time", "0.00001"]) == 1
    assert Sweep.load(tmp_path / "sweep" / "sweep.json").count("waiting") == 1


def test_another_sweep_does_not_take_the_place_of_a_finished_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path)]) == 0
    before = (tmp_path / "sweep" / "sweep.json").read_text()
    assert main(["sweep", ROBUST_RECIPE, "--runs", str(tmp_path)]) == 2
    assert "1 finished trials that do not belong to this sweep (clean, ..)" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "sweep" / "sweep.json").read_text() == before
    assert main(["sweep", ROBUST_RECIPE, "--runs", str(tmp_path), "--out", str(tmp_path / "other")]) == 0
    assert main(["sweep", CLEAN_RECIPE, ROBUST_RECIPE, "--runs", str(tmp_path)]) == 0, "one that has them and more"


def test_a_sweep_that_cannot_begin_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*arguments: Any) -> Iterator[Any]:
        raise ConfigError("there is no cluster")
        yield

    monkeypatch.setattr(sweep_verb, "run_jobs", refused)
    assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path)]) == 2
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["sweep.lock"]


@pytest.mark.parametrize("threads", ["-3", "5000"])
def test_a_number_that_is_none_of_threads_is_refused(threads: str, tmp_path: Path):
    assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path), "--threads", threads]) == 2


def test_a_trial_that_others_start_from_is_trained_as_their_start(tmp_path: Path):
    all_trials = trials([CLEAN_RECIPE, ROBUST_RECIPE], (), (), (0,))
    conditions = Conditions(runs=tmp_path, data_folder=None, hardware=Hardware("cpu", threads=1))
    assert [(job.name, job.after) for job in jobs(all_trials, conditions)] == [
        ("start: clean", ""),
        ("clean", "start: clean"),
        ("robust", "start: clean"),
    ]


def test_a_file_that_is_no_sweep_is_not_written_over(tmp_path: Path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("precious")
    assert main(["sweep", ROBUST_RECIPE, "--runs", str(tmp_path)]) == 2
    assert (tmp_path / "sweep" / "sweep.json").read_text() == "precious" and not DONE


OWN = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


def test_shards_of_an_evaluation_give_the_bits_of_the_plain_command(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)
    command = ["evaluate", f"{tmp_path / 'own.py'}:network", "--data", "fashion-mnist-sample", "--samples", "120"]
    command += ["--threads", "1", "--accelerator", "cpu", "--out"]
    assert main([*command, str(tmp_path / "plain")]) in (0, 3, 4)
    shared = tmp_path / "shared"
    assert main([*command, str(shared), "--shards", "3", "--max-time", "0.00001"]) == 1
    assert main([*command, str(shared), "--shards", "3"]) in (0, 3, 4)
    assert stored(shared / "smoke-n120.json") == stored(tmp_path / "plain" / "smoke-n120.json")
    assert not journals(journal_path(shared, "smoke-n120"))


def test_a_shard_that_fails_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    (tmp_path / "own.py").write_text(OWN)

    def broken(request: EvaluationRequest, *rest: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(evaluate_verb, "run_shard", broken)
    command = ["evaluate", f"{tmp_path / 'own.py'}:network", "--data", "fashion-mnist-sample", "--samples", "20"]
    assert main([*command, "--out", str(tmp_path), "--shards", "2"]) == 2
    assert "shard 0/2: OSError: no space left" in capsys.readouterr().err


def test_workers_find_a_model_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert _absolute(Path("own.py:network")) == tmp_path / "own.py:network"
    assert _absolute(Path("runs")) == tmp_path / "runs"
    assert _absolute(Path("package.module:network")) == Path("package.module:network")
    assert _absolute(Path("someone/their-snn")) == Path("someone/their-snn")


def test_trials_that_were_evaluated_in_another_way_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["sweep", CLEAN_RECIPE, "--runs", str(tmp_path), "--protocol", "smoke", "--samples"]
    assert main([*command, "8"]) == 0
    before = Sweep.load(tmp_path / "sweep" / "sweep.json")
    assert main([*command, "4"]) == 0
    assert "note" in capsys.readouterr().err
    assert Sweep.load(tmp_path / "sweep" / "sweep.kept-1.json") == before
    assert (tmp_path / "sweep" / "sweep.kept-1.md").exists()


def test_a_finished_sweep_that_is_called_again_and_stopped_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sweep", CLEAN_RECIPE, "--seeds", "0", "1", "--runs", str(tmp_path)]
    assert main(command) == 0
    before = Sweep.load(tmp_path / "sweep" / "sweep.json")

    def all_stopped(jobs: Sequence[Job], *_: Any) -> Iterator[tuple[str, object]]:
        yield from ((job.name, Stopped()) for job in jobs)

    monkeypatch.setattr(sweep_verb, "run_jobs", all_stopped)
    assert main(command) == 1
    after = Sweep.load(tmp_path / "sweep" / "sweep.json")
    assert after.count("finished") == 2 and after.trials == before.trials


def test_a_name_of_a_data_set_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "leaves"):
        (tmp_path / name).mkdir()
    assert absolute_source("cifar10", ("cifar10",)) == "cifar10"
    assert absolute_source("leaves", ("cifar10",)) == str(tmp_path / "leaves")


@pytest.mark.parametrize("option", [("--split", "validation"), ("--threat", "linf:2/255"), ("--samples", "8")])
def test_what_only_an_evaluation_uses_needs_a_protocol(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", ROBUST_RECIPE, *option, "--runs", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert option[0] in said and "a --protocol to attack" in said and not any(tmp_path.iterdir())


def test_two_sweeps_do_not_write_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "sweep"
    folder.mkdir()
    with (folder / "sweep.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path)]) == 2
    assert "another sweep is writing" in capsys.readouterr().err and not (folder / "sweep.json").exists()
    assert main(["sweep", CLEAN_RECIPE, "--runs", str(tmp_path)]) == 0
