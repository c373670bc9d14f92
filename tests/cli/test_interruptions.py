"""Ctrl-C in the middle of each verb and a disk that fills up: a clear end, nothing lost and nothing half-written."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hosnn
from hosnn.cli.main import main
from hosnn.nn.lenet import LeNet
from tests.reliability.commands import complete_only, save_networks, stored

TINY = ("--set", "network.channels=2,3", "--set", "network.hidden=8", "--set", "start.optim.epochs=1")
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from hosnn.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "demo:lif_clean", *TINY, "--set", "optim.epochs=1", "--runs", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def homeostatic_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_networks(tmp_path_factory.mktemp("networks")) / "ta"


@pytest.fixture(scope="module")
def slow_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes seconds to calibrate, made without training."""
    folder = tmp_path_factory.mktemp("network") / "lif"
    with torch.random.fork_rng():
        hosnn.save(
            LeNet(channels=(32, 64), hidden=8, steps=15).build(),
            folder,
            {"name": "lif", "dataset": "fashion-mnist-sample"},
        )
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("train", "demo:lif_clean", *TINY, "--set", "optim.epochs=500", "--runs", "{new}"),
        ("calibrate", "{slow}", "--out", "{new}/signature.safetensors"),
        ("evaluate", "{runs}/demo-lif-clean", "--protocol", "paper", "--out", "{new}"),
        ("reproduce", "demo", "--runs", "{new}"),
    ],
    ids=lambda command: command[0],
)
def test_ctrl_c_ends_every_verb_with_130_and_whole_files(
    command: tuple[str, ...], runs: Path, slow_network: Path, tmp_path: Path
) -> None:
    arguments = [part.format(runs=runs, slow=slow_network, new=tmp_path) for part in command]
    script = "import sys; from hosnn.cli.main import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HOSNN_BACKEND": "eager"},  # slow enough to be interrupted
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.0 if command[0] == "calibrate" else 3.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    complete_only(tmp_path)
    assert "Traceback" not in err
    assert process.returncode == 130, out + err


SLEEPY = """
import time, torch
class Sleepy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(784, 10))
    def forward(self, x):
        time.sleep(0.02)
        return x.flatten(1) @ self.weights + torch.eye(10)[0]
net = Sleepy()
"""


def test_a_second_signal_ends_an_evaluation_in_the_middle_of_a_block(tmp_path: Path) -> None:
    """A block of `full` takes minutes; its thread cannot be killed, and used to be waited for."""
    (tmp_path / "model.py").write_text(SLEEPY)
    command = ["evaluate", f"{tmp_path / 'model.py'}:net", "--data", "fashion-mnist-sample", "--protocol", "standard"]
    script = "import sys; from hosnn.cli.main import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command, "--samples", "1000", "--threads", "1", "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    journal = tmp_path / "out" / "standard.partial.jsonl"
    for _ in range(600):
        if journal.exists() and journal.read_text().count("\n") > 1:
            break
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the first signal lets the block end"
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert process.returncode == 130 and "Traceback" not in err
    complete_only(tmp_path / "out")


@pytest.mark.parametrize(("verb", "limit"), [("train", 0), ("train", 2000), ("calibrate", 0), ("evaluate", 2000)])
def test_a_full_disk_is_an_error_of_one_line_and_leaves_whole_files(
    verb: str, limit: int, runs: Path, tmp_path: Path
) -> None:
    command = {
        "train": ("train", "demo:lif_clean", *TINY, "--set", "optim.epochs=1", "--runs", str(tmp_path)),
        "calibrate": ("calibrate", str(runs / "demo-start"), "--out", str(tmp_path / "signature.safetensors")),
        "evaluate": ("evaluate", str(runs / "demo-lif-clean"), "--samples", "40", "--out", str(tmp_path)),
    }[verb]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    complete_only(tmp_path)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "error" in ended.stderr


def test_a_result_that_cannot_be_written_keeps_the_finished_blocks(runs: Path, tmp_path: Path) -> None:
    """The page and the JSON are larger than the record of finished blocks; a disk in between must not cost the work."""
    command = ["evaluate", str(runs / "demo-lif-clean"), "--samples", "40", "--out", str(tmp_path)]
    (tmp_path / "smoke-n40.json").mkdir()
    assert main(command) == 2
    record = tmp_path / "smoke-n40.partial.jsonl"
    finished = record.read_text()
    (tmp_path / "smoke-n40.json").rmdir()
    assert main(command) in (0, 3, 4)  # what the checks say of so small a network
    assert not record.exists()
    assert finished.count("\n") > 3


READY = "import sys; from hosnn.cli.main import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"


def started(*arguments: str) -> subprocess.Popen[str]:
    """A command under way, its imports done."""
    process = subprocess.Popen(
        [sys.executable, "-c", READY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not happened() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize(("verb", "number"), [("evaluate", signal.SIGINT), ("ablate", signal.SIGTERM)])
def test_the_first_signal_keeps_the_running_blocks_and_the_same_command_goes_on(
    verb: str, number: signal.Signals, homeostatic_network: Path, tmp_path: Path
) -> None:
    record = {"evaluate": "smoke-n200.partial.jsonl", "ablate": "ablations-0.partial.jsonl"}[verb]
    arguments = [verb, str(homeostatic_network), "--samples", "200", "--threads", "1", "--out", str(tmp_path)]
    process = started(*arguments)
    wait_until(lambda: lines(tmp_path / record) > 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, out + err
    assert "the same command resumes from there" in " ".join(err.split())
    kept = lines(tmp_path / record)
    assert kept > 1
    # Going on, it begins with what was kept: a time that is up at once adds nothing and loses nothing.
    assert main([*arguments, "--max-time", "0.0001"]) == 1
    assert lines(tmp_path / record) == kept


def test_a_stopped_evaluation_of_a_plain_function_does_not_promise_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time, pathlib, torch\n"
        "def model():\n"
        "    weight = torch.randn(784, 10)\n"
        "    def answer(x):\n"
        f"        pathlib.Path({str(tmp_path / 'asked')!r}).touch()\n"
        "        time.sleep(0.02)\n"
        "        return x.flatten(1) @ weight\n"
        "    return answer\n"
    )
    source = f"{tmp_path / 'slow.py'}:model"
    out = str(tmp_path / "out")
    process = started("evaluate", source, "--data", "fashion-mnist-sample", "--samples", "200", "--out", out)
    wait_until((tmp_path / "asked").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    said = " ".join(err.split())
    assert process.returncode == 130 and "Traceback" not in err
    assert "nothing was saved, the same command begins again" in said and "resumes" not in said


def test_killed_again_and_again_an_evaluation_still_ends_in_the_bits_of_an_undisturbed_one(
    homeostatic_network: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", str(homeostatic_network), "--samples", "60", "--threads", "1", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) in (0, 3, 4)
    record, result = tmp_path / "killed" / "smoke-n60.partial.jsonl", tmp_path / "killed" / "smoke-n60.json"
    random_numbers = random.Random(0)
    seen = 0
    for _ in range(3):
        process = started(*arguments, str(tmp_path / "killed"))
        wait_until(lambda: lines(record) > seen, process)  # noqa: B023  (asked for at once)
        time.sleep(random_numbers.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not result.exists()
        seen = lines(record)
    assert seen > 3
    assert main([*arguments, str(tmp_path / "killed")]) in (0, 3, 4)
    assert stored(result) == stored(tmp_path / "whole" / "smoke-n60.json")
    assert not record.exists()
