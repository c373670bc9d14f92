"""The record of a run: log.jsonl for programs, TensorBoard for people."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from hosnn.errors import CheckpointError
from hosnn.files import read_json_lines, write_bytes
from hosnn.schema import Amount, Count, Fraction, Number, validated
from hosnn.training.validation import Validation


@dataclass(frozen=True)
class Epoch:
    """A line of the log: mean training loss, validation accuracy, learning rate and, with a probe, its accuracy.

    clean  accuracy on clean validation images, if the objective has an attack
    both   share of validation images right both clean and attacked
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Count
    epoch: Count
    loss: Number
    validation_accuracy: Fraction
    lr: Amount
    probe: Fraction | None = None
    clean: Fraction | None = None
    both: Fraction | None = None


class RunLog:
    """Appends one line per epoch to FOLDER/log.jsonl and the same figures to FOLDER/tensorboard.

    Lines after `from_step` are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, from_step: int) -> None:
        self._path = folder / "log.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line + b"\n" for line, epoch in _lines(self._path).items() if epoch.step <= from_step]
            write_bytes(self._path, b"".join(kept), failure=_cannot_write)
            (folder / "tensorboard").mkdir(exist_ok=True)
            # Written by hand: SummaryWriter writes from a thread of its own, whose errors nobody can catch.
            self._events = folder / "tensorboard" / f"events.out.tfevents.{from_step:010d}"
            self._events.write_bytes(b"")
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            restart = SessionLog(status=SessionLog.START)  # makes TensorBoard drop later steps of earlier files
            self._write(Event(wall_time=time.time(), step=from_step + 1, session_log=restart))
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def epoch(self, epoch: int, step: int, loss: float, validation: Validation, lr: float) -> None:
        """Record the mean training loss, the validation accuracy and the learning rate of an epoch."""
        entry = {"step": step, "epoch": epoch, "loss": loss, "validation_accuracy": validation.accuracy, "lr": lr}
        optional = {"probe": validation.probe, "clean": validation.clean, "both": validation.both}
        entry |= {name: value for name, value in optional.items() if value is not None}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in list(entry.items())[2:]]
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
    """The epochs of a run folder: step, epoch, loss, validation_accuracy, lr, probe, clean, both; empty without a log.

    A damaged line is left out.  Raises CheckpointError if the log cannot be read.
    """
    path = folder / "log.jsonl"
    try:
        return [asdict(epoch) for epoch in _lines(path).values()]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}; move it away, it is not needed for resuming") from error


def _lines(path: Path) -> dict[bytes, Epoch]:
    return read_json_lines(path, lambda content: validated(Epoch, content)) if path.exists() else {}
