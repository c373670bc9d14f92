"""What a run says, it has saved: output that fails loses no epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hosnn.progress import Bar, Progress
from hosnn.training.checkpoint import load_state, read_pointer
from hosnn.training.pipeline import run
from tests.training.toy import CLEAN, STEPS_PER_EPOCH, cpu, toy_data


class FullDisk(Progress):
    """Reports to a disk that is full."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        class Failing(Bar):
            def report(self, text: str) -> None:
                raise OSError("No space left on device")

        yield Failing()


def test_an_epoch_is_saved_before_it_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        run(CLEAN, toy_data(), tmp_path, cpu(), progress=FullDisk())
    checkpoints = tmp_path / "clean" / "checkpoints"
    pointer = read_pointer(checkpoints)
    assert pointer is not None and load_state(checkpoints, pointer.last).position["step"] == STEPS_PER_EPOCH
