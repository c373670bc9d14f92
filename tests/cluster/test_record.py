"""A sweep's file holds every trial once and is read back as it was; its tables show means over seeds."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hosnn.cluster.record import EvaluationSummary, Sweep, TrialResult
from hosnn.cluster.tables import failures, markdown_sweep, mean_and_deviation, rich_sweep, sweep_rows
from hosnn.cluster.trials import trials
from hosnn.errors import ConfigError

GRID = ("optim.lr=1e-3,2e-3",)
SEEDS = (0, 1, 2)
MACHINE: dict[str, str | int] = {"processor": "P", "cores": 2, "threads": 1, "gpu": "none", "system": "Linux"}
VERSIONS = {"hosnn": "0.1.0", "torch": "2.13.0"}


def figures(clean: float, worst: float) -> EvaluationSummary:
    return EvaluationSummary(
        protocol="smoke",
        threat="linf:8/255",
        samples=256,
        clean=clean,
        worst=worst,
        accuracy={"FGSM": worst},
        verdict="warn",
        seconds=9.0,
        file="x.json",
        versions=VERSIONS,
        machine=MACHINE,
    )


def result(validation: float, evaluation: EvaluationSummary | None = None) -> TrialResult:
    return TrialResult(
        validation=validation,
        steps=100,
        seconds=90.0,
        cpu_seconds=180.0,
        versions=VERSIONS,
        machine=MACHINE,
        evaluation=evaluation,
    )


@pytest.fixture
def sweep() -> Sweep:
    recipes = ("demo:lif_fgsm",)
    plain = Sweep(
        recipes=recipes,
        settings=("optim.epochs=2",),
        grid=GRID,
        seeds=SEEDS,
        protocol="smoke",
        threat="linf:8/255",
        samples=None,
    )
    return plain.with_trials(trials(recipes, plain.settings, GRID, SEEDS), Path("runs"))


@pytest.fixture
def partly(sweep: Sweep) -> Sweep:
    """Three seeds of the first value, one of the second; one failed."""
    for name, share in (("", 0.8), ("-seed1", 0.9), ("-seed2", 0.7)):
        sweep = sweep.with_outcome(f"demo-lif-fgsm-lr0.001{name}", "finished", "", result(share, figures(share, 0.5)))
    sweep = sweep.with_outcome("demo-lif-fgsm-lr0.002", "finished", "", result(0.6, figures(0.6, 0.2)))
    return sweep.with_outcome("demo-lif-fgsm-lr0.002-seed1", "failed", "the loss became nan | at step 3")


def test_every_trial_stands_in_it_once_from_the_beginning(sweep: Sweep):
    assert len(sweep.trials) == 6 == len({entry.identity for entry in sweep.trials})
    assert {entry.state for entry in sweep.trials} == {"waiting"}
    assert sweep.trials[0].folder == "runs/demo-lif-fgsm-lr0.001"


def test_the_file_gives_back_what_was_written(partly: Sweep, tmp_path: Path):
    partly.save(tmp_path / "sweep.json")
    assert Sweep.load(tmp_path / "sweep.json") == partly
    assert [partly.count(state) for state in ("finished", "failed", "waiting")] == [4, 1, 1]


def test_two_that_write_one_file_at_a_time_leave_it_whole(partly: Sweep, tmp_path: Path):
    path = tmp_path / "sweep.json"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(partly.save, path) for _ in range(200)]:
            done.result()
            assert Sweep.load(path) == partly
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "hosnn-sweep-1"}', '{"format": "hosnn-sweep-0"}'])
def test_another_file_is_refused(content: str, tmp_path: Path):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot read the sweep"):
        Sweep.load(tmp_path / "sweep.json")


def test_what_is_known_to_be_finished_is_kept_when_the_same_sweep_goes_on(sweep: Sweep, partly: Sweep):
    after = sweep.resumed(partly)
    assert [entry.state for entry in after.trials] == ["finished"] * 4 + ["waiting"] * 2
    assert replace(sweep, protocol="standard").resumed(partly).count("finished") == 0
    other = sweep.with_trials(trials(sweep.recipes, ("optim.epochs=3",), GRID, SEEDS), Path("runs"))
    assert other.resumed(partly).count("finished") == 0, "another experiment of the same name"


def test_lines_show_mean_and_deviation_over_seeds(partly: Sweep):
    first, second = sweep_rows(partly)
    assert first.title == ("demo:lif_fgsm", "optim.lr=1e-3")
    assert first.seeds == "0, 1, 2"
    assert first.cells == ("80.0 ± 10.0", "1.5", "3.0", "80.0 ± 10.0", "50.0 ± 0.0", "warn")
    assert second.seeds == "0 of 0, 1, 2"
    assert second.cells == ("60.0", "1.5", "3.0", "60.0", "20.0", "warn")
    assert mean_and_deviation([]) == "not run"


def test_tables_say_what_failed_and_where_numbers_come_from(partly: Sweep):
    page = markdown_sweep(partly)
    assert "| demo:lif_fgsm optim.lr=1e-3 | 0, 1, 2 | 80.0 ± 10.0 |" in page
    assert (
        "256 test images" in page
        and "torch 2.13.0" in page
        and "P, 2 cores, 1 threads, no GPU" in page
        and "optim.epochs=2" in page
    )
    assert failures(partly) == ["demo-lif-fgsm-lr0.002-seed1: the loss became nan | at step 3"]
    assert "not done: demo-lif-fgsm-lr0.002-seed1" in page
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123
    console.print(rich_sweep(partly))
    console.file.close()
    assert "80.0 ± 10.0" in console.export_text()


def test_a_sweep_without_results_or_protocol_has_tables_too(sweep: Sweep):
    assert [line.cells for line in sweep_rows(sweep)] == [("not run",) * 6] * 2
    assert [line.cells for line in sweep_rows(replace(sweep, protocol=None))] == [("not run",) * 3] * 2
    assert "Versions: unknown" in markdown_sweep(sweep)


def test_the_same_error_is_said_once(sweep: Sweep):
    for entry in sweep.trials:
        sweep = sweep.with_outcome(entry.name, "failed", "no data")
    assert len(failures(sweep)) == 1
