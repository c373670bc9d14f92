"""Progress on a terminal by rich; plain lines where the output is no terminal; silence in the library."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Bar:
    """One running task; this one says nothing."""

    def advance(self, loss: float | None = None) -> None:
        """One more step is done."""

    def report(self, text: str) -> None:
        """Something worth a line."""


class Progress:
    """Shows nothing; the default inside the library."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A task of `total` steps of which `done` are done."""
        yield Bar()


class TerminalProgress(Progress):
    """A bar with rate and remaining time on a terminal, one line per report anywhere."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            yield _TerminalBar(bars, self.console, title, total, done)


class _TerminalBar(Bar):
    def __init__(self, bars: Bars, console: Console, title: str, total: int, done: int) -> None:
        self._bars, self._console, self._title = bars, console, title
        self._task = bars.add_task(escape(title), total=total, completed=done, note="")

    def advance(self, loss: float | None = None) -> None:
        self._bars.update(self._task, advance=1, note="" if loss is None else f"loss {loss:.4f}")

    def report(self, text: str) -> None:
        self._console.print(f"{self._title}: {text}", markup=False)
