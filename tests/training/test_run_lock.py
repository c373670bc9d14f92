"""The lock of a folder: taken again by the process that has it, and freed when that is done with it."""

import errno
import os
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch

from hosnn.deadline import Deadline
from hosnn.errors import CheckpointError, TrainingError
from hosnn.training import run_lock
from hosnn.training.run_lock import exclusive, holder, keep_threads

fcntl = pytest.importorskip("fcntl")


def is_free(path: Path) -> bool:
    """Whether somebody else could take the lock: the system's locks are per opened file, not per process."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_process_takes_its_own_lock_again_and_frees_it_at_the_end(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "worker.lock"
    with exclusive(tmp_path / "run") as first:
        with exclusive(tmp_path / "run", Deadline(5)) as again:
            assert first and again and not is_free(lock)
            assert holder(tmp_path / "run").startswith(f"{os.getpid()} on ")
        assert not is_free(lock)
    assert is_free(lock)


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    assert is_free(tmp_path / "worker.lock")


def test_a_lock_that_somebody_else_has_is_not_given_and_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "RETRY_SECONDS", 0.01)
    with (tmp_path / "worker.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for deadline in (None, Deadline(0.05)):
            with exclusive(tmp_path, deadline) as locked:
                assert not locked
        with exclusive(tmp_path, name="signature.lock") as locked:
            assert locked
    assert holder(tmp_path) == "unknown"
    with exclusive(tmp_path) as locked:
        assert locked


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_the_file_system_has_no_locks_nobody_is_kept_out(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.BaseFileLock, "acquire", without_locks)
    with exclusive(tmp_path) as locked:
        assert locked


def test_another_error_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot use the folder .*file"), exclusive(tmp_path / "file" / "run"):
        raise AssertionError


def test_threads_that_were_asked_for_are_kept_too(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        keep_threads(tmp_path, asked=1)
        keep_threads(tmp_path)
        with pytest.raises(TrainingError, match="was trained with 1 threads, but --threads asks for 2"):
            keep_threads(tmp_path, asked=2)
    finally:
        torch.set_num_threads(before)
