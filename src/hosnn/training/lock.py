"""One process at a time works in a run folder."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hosnn.deadline import Deadline
from hosnn.errors import CheckpointError

LOCK = "worker.lock"
LOOK_EVERY = 0.5  # seconds between looks at a lock that another process holds

_held: set[Path] = set()
"""Of this process, which may ask again for what it has."""


@contextmanager
def alone(folder: Path, deadline: Deadline | None = None, name: str = LOCK) -> Iterator[bool]:
    """Keep other processes out of a run folder; False if another one is at work there, and this one must not be.

    deadline  wait that long for another one; None: do not wait
    name      of the lock's file in the folder, which tells the process
    The system takes the lock from a process that dies, however it dies.  Where there are no locks it is always given.
    Raises CheckpointError if the folder cannot be used.
    """
    path = folder.resolve() / name
    if path in _held:
        yield True
        return
    with _opened(path) as file:
        while not _locked(file):
            if deadline is None or deadline.reached:
                yield False
                return
            time.sleep(LOOK_EVERY)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}\n")
        file.flush()
        _held.add(path)
        try:
            yield True
        finally:
            _held.discard(path)


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot use the folder {path.parent}: {error}; choose another --runs folder") from error


def holder(folder: Path) -> str:
    """Who holds the lock of a folder, as the file tells it."""
    return (folder / LOCK).read_text(encoding="utf-8").strip() or "unknown"


def _locked(file: IO[str]) -> bool:
    """Whether the file is now locked for this process; True where the file system has no locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
