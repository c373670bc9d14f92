"""Sweeps and shared evaluations on Ray as a user runs them, with workers and drivers killed on the way.

Needs Ray (pip install 'hosnn[ray]'), else skipped.  All but the first are slow: pytest -m slow tests/cluster.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hosnn.cluster.record import Sweep
from hosnn.cluster.trials import starts, trials
from hosnn.data import fashion_mnist_sample
from hosnn.errors import CheckpointError
from hosnn.evaluation.journal import journal_path, journals
from hosnn.training.checkpoint import load_state, read_pointer
from hosnn.training.pipeline import run
from tests.reliability.commands import stored
from tests.training.toy import cpu, same_bits

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROOT = Path(__file__).parents[2]
RECIPES = ("tests.cluster.tiny:lif", "tests.cluster.tiny:homeostatic")
GRID = ("optim.lr=5e-3,1e-2",)


def started(*arguments: object) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "hosnn", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, " ".join(err.split())


def waited_for(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        result = found()
        if result is not None:
            return result
        time.sleep(0.02)
    raise AssertionError(f"it never came: {ended(process)}")


def in_the_middle(runs: Path) -> tuple[str, int] | None:
    """Name and process of a trial that has a checkpoint and is not finished."""
    for lock in sorted(runs.glob("tiny-[lh]*/worker.txt")):
        checkpoints, words = lock.parent / "checkpoints", lock.read_text().split()
        try:
            pointer = read_pointer(checkpoints)
            if pointer is None or load_state(checkpoints, pointer.last).position["finished"]:
                continue
        except CheckpointError:  # the next generation came between the two looks
            continue
        if words and Path("/proc", words[0]).exists():
            return lock.parent.name, int(words[0])
    return None


def sessions(folder: Path) -> list[int]:
    """The steps at which a run was begun or gone on with."""
    return sorted(int(path.name.rpartition(".")[2]) for path in (folder / "tensorboard").iterdir())


def stamps(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}


def check_complete(
    runs: Path, seeds: tuple[int, ...] = (0,), recipes: tuple[str, ...] = RECIPES[:1], grid: tuple[str, ...] = GRID
) -> Sweep:
    """Every trial is finished, and each stands once in the results."""
    wanted = trials(recipes, (), grid, seeds)
    sweep = Sweep.load(runs / "sweep" / "sweep.json")
    assert [entry.identity for entry in sweep.trials] == [trial.experiment.identity for trial in wanted]
    assert len({entry.identity for entry in sweep.trials}) == len(wanted) == sweep.count("finished")
    named = {trial.experiment.name for trial in wanted} | {start.name for start in starts(wanted)}
    assert {path.name for path in runs.iterdir() if path.name != "sweep"} == named, "nothing else was trained"
    return sweep


def check_undisturbed(name: str, runs: Path, folder: Path, seeds: tuple[int, ...] = (0,)) -> None:
    """A run has the weights that it has where nobody kills anything."""
    experiment = next(trial.experiment for trial in trials(RECIPES, (), GRID, seeds) if trial.experiment.name == name)
    run(experiment, fashion_mnist_sample(), folder, cpu())
    same_bits(runs / name, folder / name)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_workers_trial_goes_on_and_a_second_call_does_nothing_twice(number: signal.Signals, tmp_path: Path):
    runs, grid = tmp_path / "runs with spaces", ("optim.lr=5e-3",)
    plan = ("--grid", *grid, "--protocol", "smoke", "--samples", 40)
    command = ("sweep", RECIPES[0], *plan, "--runs", runs, "--workers", 1)
    process = started(*command)
    name, worker = waited_for(lambda: in_the_middle(runs), process)
    os.kill(worker, number)
    status, out, err = ended(process)
    assert status == 0, out + err
    sweep = check_complete(runs, grid=grid)
    assert all(entry.result and entry.result.evaluation for entry in sweep.trials)
    assert sessions(runs / name)[0] == 0 and len(sessions(runs / name)) == 2, "it went on, it did not begin again"
    check_undisturbed(name, runs, tmp_path / "undisturbed")
    before = stamps(runs)
    status, out, err = ended(started(*command, "--json"))
    assert status == 0, err
    assert json.loads(out) == json.loads((runs / "sweep" / "sweep.json").read_text())
    assert check_complete(runs, grid=grid) == sweep and stamps(runs) == before


@pytest.mark.slow
def test_a_grid_with_a_killed_worker_loses_nothing_and_does_nothing_twice(tmp_path: Path):
    """Two recipes, two learning rates, three seeds, on two workers."""
    seeds, runs = (0, 1, 2), tmp_path / "runs"
    process = started("sweep", *RECIPES, "--grid", *GRID, "--seeds", *seeds, "--runs", runs, "--workers", 2)
    name, worker = waited_for(lambda: in_the_middle(runs), process)
    os.kill(worker, signal.SIGKILL)
    status, out, err = ended(process)
    assert status == 0, out + err
    check_complete(runs, seeds, RECIPES)
    begun = {path.parent.name: sessions(path.parent) for path in runs.glob("*/checkpoints")}
    assert len(begun[name]) == 2 and begun[name][0] == 0
    assert all(found == [0] for other, found in begun.items() if other != name), "each was trained in one go"
    check_undisturbed(name, runs, tmp_path / "undisturbed", seeds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_leaves_checkpoints_and_the_same_command_goes_on(number: signal.Signals, tmp_path: Path):
    command = ("sweep", RECIPES[0], "--grid", *GRID, "--runs", tmp_path, "--workers", 2)
    process = started(*command)
    name, _ = waited_for(lambda: in_the_middle(tmp_path), process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what Ctrl-C in a terminal does: all processes get it
    else:
        process.send_signal(number)
    status, out, err = ended(process)
    assert status == 128 + number, out + err
    assert "trials are finished; the same command resumes from there" in err and "Traceback" not in err
    state = Sweep.load(tmp_path / "sweep" / "sweep.json")
    assert len(state.trials) == 2 and state.count("waiting") > 0
    pointer = read_pointer(tmp_path / name / "checkpoints")
    assert pointer is not None
    reached = load_state(tmp_path / name / "checkpoints", pointer.last).position["step"]
    status, out, err = ended(started(*command))
    assert status == 0, out + err
    check_complete(tmp_path)
    assert sessions(tmp_path / name) == [0, reached], "it went on where it was told to stop"
    check_undisturbed(name, tmp_path, tmp_path / "sweep" / "undisturbed")


@pytest.mark.slow
def test_a_sweep_whose_driver_was_killed_is_finished_by_the_same_command(tmp_path: Path):
    command = ("sweep", RECIPES[0], "--grid", *GRID, "--runs", tmp_path, "--workers", 1)
    process = started(*command)
    name, _ = waited_for(lambda: in_the_middle(tmp_path), process)
    process.kill()
    ended(process)
    status, out, err = ended(started(*command))
    assert status == 0, out + err
    check_complete(tmp_path)
    check_undisturbed(name, tmp_path, tmp_path / "sweep" / "undisturbed")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Ray itself, which runs in this process here
def test_on_a_cluster_a_lost_machines_trial_goes_on_on_another(tmp_path: Path):
    """Three machines, played by this one: the head, which works on nothing, one that dies, and one that follows it."""
    ray_cluster = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        doomed = ray_cluster.add_node(num_cpus=1)
        process = started("sweep", RECIPES[0], "--grid", *GRID, "--runs", tmp_path, "--address", ray_cluster.address)
        name, _ = waited_for(lambda: in_the_middle(tmp_path), process)
        ray_cluster.remove_node(doomed, allow_graceful=False)
        ray_cluster.add_node(num_cpus=1)
        status, out, err = ended(process)
    finally:
        ray_cluster.shutdown()
    assert status == 0, out + err
    check_complete(tmp_path)
    assert len(sessions(tmp_path / name)) == 2
    check_undisturbed(name, tmp_path, tmp_path / "sweep" / "undisturbed")


@pytest.mark.slow
def test_when_the_time_is_up_the_same_command_goes_on(tmp_path: Path):
    command = ("sweep", RECIPES[0], "--runs", tmp_path, "--workers", 1)
    status, _, err = ended(started(*command, "--max-time", 0.001))
    assert status == 1
    assert "0 of 1 trials are finished; the same command resumes" in err
    assert Sweep.load(tmp_path / "sweep" / "sweep.json").count("waiting") == 1
    assert ended(started(*command))[0] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Ray itself, which runs in this process here
def test_time_is_up_for_trials_that_wait_for_room_too(tmp_path: Path):
    ray = importlib.import_module("ray")
    full = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        ray.init(address=full.address, log_to_driver=False, logging_level="error")
        taken = ray.remote(num_cpus=1)(lambda: time.sleep(300)).remote()
        ray.wait([taken], timeout=3)
        process = started(
            *("sweep", RECIPES[0], "--runs", tmp_path, "--address", full.address, "--max-time", 0.05),
        )
        status, _, err = ended(process)
    finally:
        ray.shutdown()
        full.shutdown()
    assert status == 1 and "0 of 1 trials are finished" in err


@pytest.mark.slow
def test_a_sigterm_while_ray_starts_ends_with_its_status(tmp_path: Path):
    process = started("sweep", RECIPES[0], "--runs", tmp_path, "--workers", 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    waited_for(lambda: children.read_text().split() or None, process)
    process.send_signal(signal.SIGTERM)
    status, _, err = ended(process)
    assert status == 143 and "the same command" in err


@pytest.mark.slow
def test_one_failing_trial_does_not_end_the_others(tmp_path: Path):
    process = started("sweep", RECIPES[0], "--grid", "optim.lr=5e-3,1e30", "--runs", tmp_path, "--workers", 1)
    status, out, err = ended(process)
    assert status == 2, out + err
    good, bad = Sweep.load(tmp_path / "sweep" / "sweep.json").trials
    assert (good.state, bad.state) == ("finished", "failed")
    assert "Lower optim.lr" in bad.error and "failed: tiny-lif-lr1e_30" in out


@pytest.mark.slow
def test_shares_done_by_workers_gather_to_the_bits_of_one_run(tmp_path: Path):
    experiment = trials(RECIPES[:1], (), (), (0,))[0].experiment
    run(experiment, fashion_mnist_sample(), tmp_path, cpu())
    command = ("evaluate", tmp_path / "tiny-lif", "--samples", 800, "--threads", 1)
    status, _, err = ended(started(*command, "--out", tmp_path / "plain"))
    assert status in (0, 3, 4), err
    shared = tmp_path / "shared"
    process = started(*command, "--out", shared, "--shards", 2)
    share = journal_path(shared, "smoke-n800", (0, 2))
    worker = waited_for(lambda: _writer(share), process)
    kept = share.read_text()
    os.kill(worker, signal.SIGKILL)
    status, out, err = ended(process)
    assert status in (0, 3, 4), out + err
    assert kept.count("\n") > 2, "there was something to go on from"
    assert stored(shared / "smoke-n800.json") == stored(tmp_path / "plain" / "smoke-n800.json")
    assert not journals(journal_path(shared, "smoke-n800"))


def _writer(share: Path) -> int | None:
    """The worker of Ray that does a share, once it has done some of it."""
    if not share.exists() or share.read_text().count("\n") < 4:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::share 0/2"):
                return int(process.name)
        except OSError:
            continue
    return None
