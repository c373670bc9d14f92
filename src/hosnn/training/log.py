"""The record of a run: log.jsonl for programs, TensorBoard for people."""

import json
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from hosnn.errors import CheckpointError
from hosnn.files import write_bytes

_UNREADABLE = 2**62


class RunLog:
    """Appends one line per epoch to FOLDER/log.jsonl and the same figures to FOLDER/tensorboard.

    Lines after `from_step` are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, from_step: int) -> None:
        self._path = folder / "log.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
            kept = "".join(f"{line}\n" for line in lines if _step_of(line) <= from_step)
            write_bytes(self._path, kept.encode(), failure=_cannot_write)
            (folder / "tensorboard").mkdir(exist_ok=True)
            # Written by hand: SummaryWriter writes from a thread of its own, whose errors nobody can catch.
            self._events = folder / "tensorboard" / f"events.out.tfevents.{from_step:010d}"
            self._events.write_bytes(b"")
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            restart = SessionLog(status=SessionLog.START)  # makes TensorBoard drop later steps of earlier files
            self._write(Event(wall_time=time.time(), step=from_step + 1, session_log=restart))
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def epoch(self, epoch: int, step: int, loss: float, accuracy: float, lr: float) -> None:
        """Record the mean training loss, the validation accuracy and the learning rate of an epoch."""
        entry = {"step": step, "epoch": epoch, "loss": loss, "validation_accuracy": accuracy, "lr": lr}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            values = [Summary.Value(tag=tag, simple_value=entry[tag]) for tag in ("loss", "validation_accuracy", "lr")]
            self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _write(self, event: Event) -> None:
        with self._events.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def _cannot_write(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot write {path}: {error}; the last checkpoint is intact.  Free some space, then resume with --resume"
    )


def read_log(folder: Path) -> list[dict[str, float]]:
    """The epochs of a run folder: step, epoch, loss, validation_accuracy, lr; empty if there is no log."""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _step_of(line) < _UNREADABLE]


def _step_of(line: str) -> int:
    """The step of a log line; a line cut off by a kill counts as beyond any step."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return _UNREADABLE
