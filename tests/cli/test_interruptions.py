"""Ctrl-C in the middle of each verb and a disk that fills up: a clear end, nothing lost and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hosnn.cli.main import main

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


def complete_only(folder: Path) -> None:
    """Every file that is there can be read as what it is."""
    assert not list(folder.rglob("*.tmp"))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("step-*"):
        assert (path / "model.safetensors").exists() and (path / "config.json").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("train", "demo:lif_clean", *TINY, "--set", "optim.epochs=500", "--runs", "{new}"),
        ("calibrate", "{runs}/demo-start", "--out", "{new}/signature.safetensors"),
        ("evaluate", "{runs}/demo-lif-clean", "--protocol", "paper", "--out", "{new}"),
        ("reproduce", "demo", "--runs", "{new}"),
    ],
    ids=lambda command: command[0],
)
def test_ctrl_c_ends_every_verb_with_130_and_whole_files(command: tuple[str, ...], runs: Path, tmp_path: Path) -> None:
    arguments = [part.format(runs=runs, new=tmp_path) for part in command]
    script = "import sys; from hosnn.cli.main import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3 if command[0] == "calibrate" else 3.0)  # calibrating takes a second
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    complete_only(tmp_path)
    assert "Traceback" not in err
    assert process.returncode == 130, out + err


@pytest.mark.parametrize("limit", [0, 2000])
@pytest.mark.parametrize("verb", ["train", "calibrate", "evaluate"])
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
    assert main(command) == 0
    assert not record.exists()
    assert finished.count("\n") > 3
