"""The terminal: losing it ends no work, and names that come from files cannot steer it."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

from hosnn.names import printable

BROKEN_PIPE = 128 + 13
"""Exit status that shells give a process whose reader ended: 128 + SIGPIPE."""

DONE = (0, 3, 4)
"""Exit statuses of work that was done."""

LOST = 2
"""Exit status of work that was done and whose output could not be written."""


class SafeConsole(Console):
    """A console that prints long lines as they are, and of every text only what is `printable`."""

    def __init__(self, *, stderr: bool = False, highlight: bool = True, lines: bool = False) -> None:
        """lines  of several processes that share a terminal: no bars, which would overwrite each other"""
        terminal = False if lines else None
        super().__init__(stderr=stderr, soft_wrap=True, highlight=highlight, emoji=False, force_terminal=terminal)

    def render_str(self, text: str, **options: Any) -> Text:
        try:
            return super().render_str(printable(text), **options)
        except MarkupError:  # a name with brackets, which some table did not escape
            return super().render_str(printable(text), **{**options, "markup": False})


class Output:
    """A text stream that drops what it cannot write, and replaces characters that its encoding does not have.

    lost  the first error of writing; None: nothing was dropped
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        self._attempt(lambda: self._stream.write(text.encode(encoding, "replace").decode(encoding)))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.lost is None:
            try:
                action()
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self.lost = error

    def silence(self) -> None:
        """Send what is left in the buffers of a lost stream nowhere, so that Python's exit does not fail on it."""
        if self.lost is not None and self._stream in (sys.__stdout__, sys.__stderr__):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def outlived() -> Iterator[Callable[[int], int]]:
    """Inside, a terminal or pipe that closes, or a full disk behind standard output, ends nothing.

    Yields the exit status of a command by that of its work: another one if the work was done and its output lost.
    """
    former = (sys.stdout, sys.stderr)
    stdout, stderr = (None if stream is None else Output(stream) for stream in former)  # None: closed at the start

    def status(of_work: int) -> int:
        if stdout is not None:
            stdout.flush()
        if stdout is None or stdout.lost is None or of_work not in DONE:
            return of_work
        if isinstance(stdout.lost, OSError) and stdout.lost.errno == errno.EPIPE:
            return BROKEN_PIPE
        SafeConsole(stderr=True, highlight=False).print(
            f"standard output could not be written ({stdout.lost}); the work is done, its files are complete",
            markup=False,
        )
        return LOST

    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN) if in_main_thread and hasattr(signal, "SIGHUP") else None
    sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
    try:
        yield status
    finally:
        sys.stdout, sys.stderr = former
        if handler is not None:
            signal.signal(signal.SIGHUP, handler)
        for output in (stdout, stderr):
            if output is not None:
                output.flush()
                output.silence()
