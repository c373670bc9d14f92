"""Independent trainings side by side on a CPU: one process per core, each a `python -m` of this module.

Whatever a process cannot do, the caller does again by itself and reports: nothing is lost but time.
"""

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hosnn.data import load_dataset
from hosnn.deadline import Deadline, stopping
from hosnn.errors import HosnnError
from hosnn.progress import TerminalProgress
from hosnn.runtime import Hardware
from hosnn.terminal import SafeConsole, outlived
from hosnn.training.experiment import Experiment
from hosnn.training.pipeline import run

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Training:
    """One training for a process of its own.

    json_output  lines of progress go to standard error
    """

    experiment: Experiment
    runs: Path
    data_folder: Path | None
    hardware: Hardware
    json_output: bool = False


def train_side_by_side(trainings: Sequence[Training], processes: int, deadline: Deadline) -> None:
    """Train at most `processes` at a time; returns when all ended, or soon after the deadline, with checkpoints kept.

    Raises nothing for a training that fails.
    """
    waiting, running, asked = list(trainings), list[subprocess.Popen[bytes]](), False
    try:
        with stopping(deadline):
            while waiting or running:
                for process in [process for process in running if process.poll() is not None]:
                    _ended(process)
                    running.remove(process)
                if deadline.reached and not asked:
                    asked = True  # once: a second signal would stop them at once, without a checkpoint
                    waiting.clear()
                    for process in running:
                        process.terminate()
                while waiting and len(running) < processes:
                    running.append(_started(waiting.pop(0)))
                if running:
                    time.sleep(POLL_SECONDS)
    finally:
        for process in running:  # none is left unless this was interrupted a second time
            process.kill()
            process.wait()
            _ended(process)


def _started(training: Training) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which asks the others to stop at a safe point.
    command = [sys.executable, "-m", "hosnn.cli.side_by_side"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    with suppress(OSError):  # it ended already
        process.stdin.write(pickle.dumps(training))
        process.stdin.flush()
    return process


def _ended(process: "subprocess.Popen[bytes]") -> None:
    with suppress(OSError):  # what it did not read
        process.stdin.close()  # type: ignore[union-attr]


def _train() -> int:
    """A process's work: the training that comes through standard input, which is open as long as the caller lives."""
    training: Training = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    deadline = Deadline()
    progress = TerminalProgress(SafeConsole(stderr=training.json_output, lines=True))
    try:
        with stopping(deadline):
            data = load_dataset(training.experiment.data, training.data_folder)
            fabric = training.hardware.fabric()
            outcome = run(
                training.experiment, data, training.runs, fabric, deadline, progress, resume=True, same_threads=True
            )
    except (HosnnError, OSError):  # the caller tries again, and says what is wrong
        return 2
    return 0 if outcome.finished else 1


def _end_with_caller() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock Python's own exit needs
        pass
    os._exit(1)  # as after a kill: the checkpoints are complete


if __name__ == "__main__":
    with outlived() as status:
        ended = status(_train())
    sys.exit(ended)
