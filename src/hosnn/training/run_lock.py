"""Locks of run folders: one process at a time works in each, always with as many threads."""

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from hosnn.deadline import Deadline
from hosnn.errors import CheckpointError, HosnnError, TrainingError
from hosnn.files import read_bytes, write_text
from hosnn.runtime import check_threads

LOCK = "worker.lock"
HOLDER = "worker.txt"
THREADS = "threads.txt"
RETRY_SECONDS = 0.5  # between attempts to get a lock that another process holds
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks."""


@contextmanager
def exclusive(folder: Path, deadline: Deadline | None = None, name: str = LOCK) -> Iterator[bool]:
    """Keep other processes out of a folder; False if another one has its lock.

    deadline  wait for the lock until then; None: do not wait
    name      of the lock's file in the folder
    A process may take a lock that it has already.  The system frees the lock of a process that dies.  On a file system
    without locks nobody is kept out.
    Raises CheckpointError if the folder cannot be used.
    """
    path = folder.resolve() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One object for all of this process, in any thread: that is what lets it take its own lock again.
        lock = FileLock(path, is_singleton=True, thread_local=False)
        locked = _acquire(lock, deadline)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise CheckpointError(
                f"cannot use the folder {path.parent}: {error}; make it writable or choose another one"
            ) from error
        yield True
        return
    if not locked:
        yield False
        return
    try:
        if name == LOCK:
            with suppress(OSError):  # of use to people only
                (path.parent / HOLDER).write_text(f"{os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield True
    finally:
        lock.release()


def holder(folder: Path) -> str:
    """The process that has the lock of a run folder, or had it last."""
    try:
        return (folder / HOLDER).read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"


def keep_threads(folder: Path, asked: int = 0) -> None:
    """Have torch use as many threads as the run in the folder began with; the first time, record how many it uses.

    asked  the number that the user asked for, if any.  Raises TrainingError if the run began with another.
    """
    path = folder / THREADS
    try:
        recorded = int(read_bytes(path))
        check_threads(recorded)
    except (OSError, ValueError, HosnnError):  # a new run, or a damaged record
        recorded = 0
    if recorded > 0 and asked not in (0, recorded):
        raise TrainingError(
            f"{folder} was trained with {recorded} threads, but --threads asks for {asked}; sums depend on their "
            f"number in the last bits: leave --threads out, give {recorded}, or train it again in another --runs folder"
        )
    if recorded > 0:
        torch.set_num_threads(recorded)
    else:
        write_text(path, f"{torch.get_num_threads()}\n")


def _acquire(lock: FileLock, deadline: Deadline | None) -> bool:
    """Take the lock, waiting until the deadline; False if another process has it then."""
    while True:
        with suppress(Timeout):
            lock.acquire(blocking=False)
            return True
        if deadline is None or deadline.reached:
            return False
        time.sleep(RETRY_SECONDS)
