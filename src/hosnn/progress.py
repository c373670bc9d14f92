"""Progress of long work: bars on a terminal, lines where the output is no terminal, nothing inside the library."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from hosnn.names import printable


class Bar:
    """Progress of one task; this class shows nothing."""

    def advance(self, loss: float | None = None) -> None:
        """Count one more step."""

    def report(self, text: str) -> None:
        """Print a line."""


class Progress:
    """Progress of several tasks; this class shows nothing."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Inside, the progress of a task of `total` steps, of which `done` are done already."""
        yield Bar()


class TerminalProgress(Progress):
    """A bar with elapsed and remaining time if the console is a terminal, and a line for each report."""

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
        self._task = bars.add_task(escape(printable(title)), total=total, completed=done, note="")

    def advance(self, loss: float | None = None) -> None:
        self._bars.update(self._task, advance=1, note="" if loss is None else f"loss {loss:.4f}")

    def report(self, text: str) -> None:
        self._console.print(f"{self._title}: {text}", markup=False)
