"""Other jobs on the cores: fewer threads, which sleep, and trainings side by side with the bits of one by one."""

import io
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from hosnn import runtime
from hosnn.cli.main import main
from hosnn.cli.side_by_side import Training, train_side_by_side
from hosnn.data import load_dataset
from hosnn.deadline import Deadline
from hosnn.openmp import POLICY, SETTINGS, is_our_command, let_threads_sleep
from hosnn.recipes import demo
from hosnn.recipes.reproductions import REPRODUCTIONS, PlannedEvaluation
from hosnn.recipes.resolve import override
from hosnn.recipes.variants import with_seed
from hosnn.runtime import Hardware, free_cores, threads_by_load
from hosnn.training.experiment import Experiment
from hosnn.training.pipeline import finished_run, run
from hosnn.training.run_lock import THREADS, keep_threads

SMALL = ("network.channels=2,3", "network.hidden=8", "optim.epochs=1", "optim.batch_size=512")
ONE_THREAD = Hardware(accelerator="cpu", threads=1)


# threads that sleep


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        (["python", "-m", "hosnn", "reproduce", "demo"], True),
        (["python3.12", "-X", "dev", "-m", "hosnn"], True),
        (["python", "-m", "hosnn.cli.side_by_side"], True),
        (["/usr/bin/python", "/home/me/.venv/bin/hosnn", "train"], True),
        (["python", "-m", "pytest", "hosnn"], False),
        (["python", "train.py", "-m", "hosnn"], False),
        (["python", "-m", "hosnn_tools"], False),
        (["python", "-m"], False),
        (["python"], False),
        (["python", "-c", "import hosnn"], False),
    ],
)
def test_only_our_own_command_changes_how_threads_wait(arguments: list[str], ours: bool) -> None:
    environment: dict[str, str] = {}
    let_threads_sleep(environment, arguments)
    assert is_our_command(arguments) is ours
    assert environment == ({POLICY: "PASSIVE"} if ours else {})


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_user_says_about_waiting_holds(name: str) -> None:
    environment = {name: "ACTIVE"}
    let_threads_sleep(environment, ["python", "-m", "hosnn"])
    assert environment == {name: "ACTIVE"}


def test_the_policy_is_set_before_torch_is_loaded() -> None:
    code = (
        "import os, sys, builtins\n"
        "sys.orig_argv[1:] = ['-m', 'hosnn']\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import hosnn\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "PASSIVE\n"


# threads by the load


def loaded(monkeypatch: pytest.MonkeyPatch, idle: float, cores: int = 8, own: int = 8) -> None:
    """A machine of so many cores, a share of which is idle, for which torch would choose `own` threads."""
    ticks = iter([(0, 0), (round(100 * idle), 100)] * 2)
    monkeypatch.setattr(runtime, "_idle_and_total", lambda: next(ticks))
    monkeypatch.setattr(runtime, "available_cores", lambda: cores)
    monkeypatch.setattr(runtime, "LOAD_SECONDS", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: own)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("idle", "own", "expected"), [(1.0, 8, 8), (1.0, 4, 4), (0.75, 8, 6), (0.5, 2, 2), (0.06, 8, 1), (0.0, 8, 1)]
)
def test_there_are_no_more_threads_than_free_cores(
    idle: float, own: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(monkeypatch, idle, own=own)
    assert threads_by_load() == expected


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_the_user_says_about_threads_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, 0.0)
    monkeypatch.setenv(name, "8")
    assert threads_by_load() == 8


def test_without_proc_the_load_average_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, 0.0)
    monkeypatch.setattr(runtime, "_idle_and_total", lambda: None)
    for load, free in ((0.1, 8), (2.9, 5), (30.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
        assert free_cores() == free


def test_this_machine_has_a_core() -> None:
    assert 1 <= free_cores() <= (os.cpu_count() or 1)


# as many threads on a resume


@pytest.mark.parametrize("damage", [None, "", "x", "0", "-3", "99999", "1e9", "\0"])
def test_a_run_goes_on_with_the_threads_it_began_with(damage: str | None, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        keep_threads(tmp_path)
        if damage is not None:
            (tmp_path / THREADS).write_text(damage)
        torch.set_num_threads(1)
        keep_threads(tmp_path)
        assert torch.get_num_threads() == (2 if damage is None else 1)
        assert (tmp_path / THREADS).read_text() == f"{torch.get_num_threads()}\n"
    finally:
        torch.set_num_threads(before)


# side by side


def small(recipe: str = "lif_clean", seed: int = 0) -> Experiment:
    experiment = override(getattr(demo, recipe)(), SMALL)
    start = experiment.start
    return with_seed(replace(experiment, start=None if start is None else override(start, SMALL)), seed)


def weights(runs: Path, experiments: Sequence[Experiment]) -> list[bytes]:
    return [
        path.read_bytes() for e in experiments for path in sorted((runs / e.name / "checkpoints").rglob("model.safe*"))
    ]


def test_trainings_side_by_side_have_the_bits_of_one_by_one(tmp_path: Path) -> None:
    experiments = [replace(small(seed=seed), start=None, name=f"run-{seed}") for seed in (0, 1)]
    data = load_dataset(experiments[0].data)
    fails = replace(experiments[0], data="no-such-data", name="fails")  # which is left to the caller
    trainings = [Training(e, tmp_path / "together", None, ONE_THREAD) for e in (fails, *experiments)]
    train_side_by_side(trainings, 3, Deadline())
    assert all(finished_run(e, data, tmp_path / "together" / e.name) for e in experiments)
    before = torch.get_num_threads()
    try:
        for experiment in experiments:
            run(experiment, data, tmp_path / "alone", ONE_THREAD.fabric())
    finally:
        torch.set_num_threads(before)
    together, alone = (weights(tmp_path / name, experiments) for name in ("together", "alone"))
    assert len(alone) >= 2 and together == alone


class Process:
    """A training that takes a while to stop after it is asked to."""

    stdin = io.BytesIO()

    def __init__(self) -> None:
        self.signals, self.polls_left = 0, 4

    def terminate(self) -> None:
        self.signals += 1

    def poll(self) -> int | None:
        self.polls_left -= bool(self.signals)
        return None if self.polls_left else 1


def test_a_deadline_stops_those_that_run_with_one_signal_each_and_starts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second signal would be Ctrl-C pressed again: no checkpoint."""
    started: list[Process] = []

    def start(training: object) -> Process:
        started.append(Process())
        return started[-1]

    monkeypatch.setattr("hosnn.cli.side_by_side._started", start)
    monkeypatch.setattr("hosnn.cli.side_by_side.POLL_SECONDS", 0.01)
    trainings = [Training(small(), Path("runs"), None, ONE_THREAD)] * 5
    train_side_by_side(trainings, 2, Deadline(0.05))
    assert [(process.signals, process.polls_left) for process in started] == [(1, 0)] * 2


def test_a_process_ends_with_its_caller(tmp_path: Path) -> None:
    """Its standard input then ends, whatever killed the caller."""
    endless = override(replace(small(), start=None), ("optim.epochs=100000",))
    command = [sys.executable, "-m", "hosnn.cli.side_by_side"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(Training(endless, tmp_path, None, ONE_THREAD)))
        process.stdin.flush()
        end = time.monotonic() + 120
        while not (tmp_path / endless.name / "worker.txt").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 1


def test_reproduce_trains_the_grid_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = tuple(partial(small, recipe) for recipe in ("lif_clean", "homeostatic_clean"))
    plans = (PlannedEvaluation("smoke", samples=20, panel_samples=0),)
    monkeypatch.setitem(REPRODUCTIONS, "demo", replace(REPRODUCTIONS["demo"], grid=grid, plans=plans, columns=()))
    asked: list[tuple[int, list[str], set[int]]] = []

    def record(trainings: Sequence[Training], processes: int, deadline: Deadline) -> None:
        names, threads = [t.experiment.name for t in trainings], {t.hardware.threads for t in trainings}
        asked.append((processes, names, threads))
        raise KeyboardInterrupt

    monkeypatch.setattr("hosnn.cli.reproduction_pipeline.train_side_by_side", record)
    before = torch.get_num_threads()
    assert main(["reproduce", "demo", "--runs", str(tmp_path), "--accelerator", "cpu", "--threads", "2"]) == 130
    torch.set_num_threads(before)
    assert asked == [(2, [make().name for make in grid], {1})]
