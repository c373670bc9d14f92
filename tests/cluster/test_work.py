"""What a worker does, without Ray: train and evaluate once, go on where another stopped, never two in one folder."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosnn.cluster import work
from hosnn.cluster.record import TrialResult
from hosnn.cluster.work import Conditions, run_trial, train_start, working_in
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import CheckpointError, ConfigError
from hosnn.runtime import Hardware
from hosnn.training import run_lock
from hosnn.training.pipeline import run
from tests.training.toy import CLEAN, ROBUST, StopAfter, cpu, same_bits, toy_data, worked_in


@pytest.fixture
def conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Conditions:
    monkeypatch.setattr(work, "load_dataset", lambda name, folder: toy_data())
    work._data.cache_clear()
    return Conditions(
        runs=tmp_path, data_folder=None, hardware=Hardware("cpu", threads=1), protocol="smoke", samples=12
    )


def stamps(folder: Path) -> dict[Path, int]:
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("worker.")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_trial_is_trained_and_evaluated_and_found_the_next_time(conditions: Conditions):
    train_start(CLEAN, conditions, Deadline())
    first = run_trial(ROBUST, conditions, Deadline())
    assert first.evaluation is not None
    assert (first.evaluation.samples, first.evaluation.file) == (12, "evaluations/smoke-n12.json")
    assert first.versions["torch"] and first.machine["processor"]
    before = stamps(conditions.runs)
    assert run_trial(ROBUST, conditions, Deadline()) == first
    assert stamps(conditions.runs) == before


def test_stopped_at_any_step_it_goes_on_to_the_same_bits(conditions: Conditions, tmp_path: Path):
    trained = replace(conditions, protocol=None)
    for steps in (2, 9):
        with pytest.raises(Interrupted):
            run_trial(ROBUST, trained, StopAfter(steps))
    assert isinstance(run_trial(ROBUST, trained, Deadline()), TrialResult)
    run(ROBUST, toy_data(), tmp_path / "undisturbed", cpu())
    same_bits(conditions.runs / "robust", tmp_path / "undisturbed" / "robust")


def test_a_run_of_another_verb_is_found_and_its_machine_is_unknown(conditions: Conditions):
    run(CLEAN, toy_data(), conditions.runs, cpu())
    found = run_trial(CLEAN, replace(conditions, protocol=None), Deadline())
    assert found.machine == {} and found.evaluation is None


def test_a_trial_that_ends_at_any_instant_after_its_training_knows_its_machine(
    conditions: Conditions, monkeypatch: pytest.MonkeyPatch
):
    def trained_and_killed(*arguments: Any, **options: Any) -> None:
        run(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work, "run", trained_and_killed)
        with pytest.raises(KeyboardInterrupt):
            run_trial(CLEAN, conditions, Deadline())
    assert run_trial(CLEAN, conditions, Deadline()).machine["processor"]


def test_the_record_of_another_experiment_stays(conditions: Conditions):
    train_start(CLEAN, conditions, Deadline())
    with pytest.raises(CheckpointError, match="holds another experiment"):
        run_trial(replace(CLEAN, seed=1), conditions, Deadline())
    assert run_trial(CLEAN, conditions, Deadline()).machine["processor"]


@pytest.mark.parametrize("content", ["5", "[]", "{}", '{"identity": 1, "machine": 2}', "[" * 100_000])
def test_a_damaged_record_of_the_machine_is_none(content: str, conditions: Conditions):
    train_start(CLEAN, conditions, Deadline())
    (conditions.runs / "clean" / "machine.json").write_text(content)
    assert run_trial(CLEAN, conditions, Deadline()).machine == {}


def test_more_images_than_there_are_are_refused(conditions: Conditions):
    with pytest.raises(ConfigError, match="--samples got 17; toy has 16 test images"):
        run_trial(CLEAN, replace(conditions, samples=17), Deadline())


def test_a_folder_is_worked_in_by_one_process_until_it_ends_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_lock, "RETRY_SECONDS", 0.01)
    with worked_in(tmp_path / "run") as other:
        assert (tmp_path / "run" / "worker.txt").read_text().startswith(f"{other} on ")
        with (
            pytest.raises(Interrupted, match="another process worked in"),
            working_in(tmp_path / "run", Deadline(0.05)),
        ):
            raise AssertionError
    with working_in(tmp_path / "run", Deadline(5)):
        assert (tmp_path / "run" / "worker.txt").read_text().startswith(f"{os.getpid()} on ")
