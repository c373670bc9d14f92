"""Stopping at a safe point: when the time is up, or at the first Ctrl-C."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hosnn.errors import ConfigError, HosnnError


class Deadline:
    """When a loop has to stop: after `seconds`, or once the user pressed Ctrl-C or sent SIGTERM (see `stopping`).

    signalled  number of the signal, 0 without one
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"max-time got {seconds / 60:g} minutes; expected a time > 0")
        self._end = None if seconds is None else time.monotonic() + seconds
        self.signalled = 0

    @property
    def left(self) -> float | None:
        """Seconds until the time is up; None if it never is."""
        return None if self._end is None else self._end - time.monotonic()

    @property
    def reached(self) -> bool:
        """Whether it is time to stop."""
        return bool(self.signalled) or (self._end is not None and time.monotonic() >= self._end)


@contextmanager
def stopping(deadline: Deadline) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM makes `deadline` reached; a second one raises KeyboardInterrupt.

    In a thread other than the main one, signals stay as they are.
    """

    def stop(number: int, _: FrameType | None) -> None:
        if deadline.signalled:
            raise KeyboardInterrupt
        deadline.signalled = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Interrupted(HosnnError):
    """Work was stopped by its deadline before its end.

    place   how far it got, for the message
    kept    whether that is saved, so that the same call resumes from there; False: it begins again
    status  exit status of a command: 1 if the time was up, 128 + number if a signal asked to stop
    """

    def __init__(self, place: str, deadline: Deadline, kept: bool = True) -> None:
        then = "the same command resumes from there" if kept else "nothing was saved, the same command begins again"
        super().__init__(f"{place}; {then}")
        self.place = place
        self.status = 128 + deadline.signalled if deadline.signalled else 1
