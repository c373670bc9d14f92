"""When to stop: the time is up, or the user asked once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hosnn.errors import ConfigError, HosnnError


class Deadline:
    """Tells a loop when to stop: the time is up, or the user pressed Ctrl-C (or sent SIGTERM) once."""

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"max-time got {seconds:g} seconds; expected a time > 0")
        self._end = None if seconds is None else time.monotonic() + seconds
        self.signalled = 0

    @property
    def left(self) -> float | None:
        """Seconds until the time is up; None if it never is."""
        return None if self._end is None else self._end - time.monotonic()

    @property
    def reached(self) -> bool:
        return bool(self.signalled) or (self._end is not None and time.monotonic() >= self._end)


@contextmanager
def stopping(deadline: Deadline) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask `deadline` to stop at the next safe point; a second interrupts at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if deadline.signalled:
            raise KeyboardInterrupt
        deadline.signalled = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupted(HosnnError):
    """Work stopped before its end; the same call goes on at `place`, where it stopped.

    kept    False: nothing was written down, so the same call begins again
    status  exit status of a command: 1 if the time was up, 128 + number if a signal asked to stop
    """

    def __init__(self, place: str, deadline: Deadline, kept: bool = True) -> None:
        then = "the same command goes on from there" if kept else "nothing could be kept, the same command begins again"
        super().__init__(f"{place}; {then}")
        self.place = place
        self.status = 128 + deadline.signalled if deadline.signalled else 1
