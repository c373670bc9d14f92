"""A sweep as tables: a line per recipe and overrides, mean and standard deviation over seeds.  Pure functions."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from hosnn.cluster.record import Result, Sweep, TrialRecord
from hosnn.results.check import SEVERITIES
from hosnn.results.text import NOT_RUN, inline, percent, rule, table_row


@dataclass(frozen=True)
class Line:
    """A recipe with its overrides, over all seeds."""

    title: tuple[str, ...]
    seeds: str
    texts: tuple[str, ...]


def headings(sweep: Sweep) -> list[str]:
    found = ["validation", "minutes"]
    return found if sweep.protocol is None else [*found, "clean", "worst case", "checks"]


def lines(sweep: Sweep) -> list[Line]:
    """One line per recipe and overrides, in the order they were asked for."""
    groups: dict[tuple[str, tuple[str, ...]], list[TrialRecord]] = {}
    for entry in sweep.trials:
        groups.setdefault((entry.recipe, entry.overrides), []).append(entry)
    return [
        Line((recipe, *overrides), _seeds(entries), tuple(_texts(sweep, entries)))
        for (recipe, overrides), entries in groups.items()
    ]


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in percent; of one value the value."""
    if len(values) < 2:
        return percent(values[0]) if values else NOT_RUN
    return f"{percent(statistics.fmean(values))} ± {percent(statistics.stdev(values))}"


def markdown_sweep(sweep: Sweep) -> str:
    """The sweep as a Markdown page: the table, how its numbers came about, what failed."""
    head = ("recipe", "seeds", *headings(sweep))
    return "\n".join(
        [
            "## Sweep",
            "",
            f"{caption(sweep)}.",
            "",
            table_row(head),
            rule(len(head), 2),
            *(table_row((" ".join(line.title), line.seeds, *line.texts)) for line in lines(sweep)),
            "",
            *(f"- not done: {inline(text)}" for text in failures(sweep)),
            *([""] if failures(sweep) else []),
            inline(provenance(sweep)),
            "",
        ]
    )


def rich_sweep(sweep: Sweep) -> Table:
    """The sweep for a terminal."""
    table = Table(title="sweep", caption=Text(caption(sweep)))
    table.add_column("recipe", overflow="fold")
    for heading in ("seeds", *headings(sweep)):
        table.add_column(heading, justify="right")
    for line in lines(sweep):
        table.add_row(*map(Text, ("\n".join(line.title), line.seeds, *line.texts)))
    return table


def caption(sweep: Sweep) -> str:
    """What the numbers are."""
    found = [entry.result.evaluation for entry in sweep.trials if entry.result and entry.result.evaluation]
    images = _listed(f"{count:,}" for count in sorted({figures.samples for figures in found}))
    under = f"; clean and worst case: {sweep.protocol}, {sweep.threat}, {images} images" if found else ""
    several = "; mean ± standard deviation over seeds" if len(sweep.seeds) > 1 else ""
    shared = f"; all with {' '.join(sweep.settings)}" if sweep.settings else ""
    return f"Accuracy in percent, on the validation split{under}{several}; minutes of training{shared}"


def failures(sweep: Sweep) -> list[str]:
    """What went wrong, each error once, with the trials it befell."""
    befell: dict[str, list[str]] = {}
    for entry in sweep.trials:
        if entry.state == "failed":
            befell.setdefault(entry.error, []).append(entry.name)
    return [f"{', '.join(names)}: {error}" for error, names in befell.items()]


def provenance(sweep: Sweep) -> str:
    """Versions and hardware in one paragraph, without dates."""
    results = _results(sweep.trials)
    versions = _listed(", ".join(f"{name} {what}" for name, what in result.versions.items()) for result in results)
    machines = _listed(
        f"{result.machine['processor']}, {result.machine['threads']} threads, GPU: {result.machine['gpu']}"
        for result in results
        if result.machine
    )
    return f"Versions: {versions or 'unknown'}. Hardware: {machines or 'unknown'}."


def _texts(sweep: Sweep, entries: Sequence[TrialRecord]) -> Iterable[str]:
    results = _results(entries)
    yield mean_and_deviation([result.validation for result in results])
    yield f"{statistics.fmean(result.seconds for result in results) / 60:.1f}" if results else NOT_RUN
    if sweep.protocol is not None:
        figures = [result.evaluation for result in results if result.evaluation is not None]
        yield mean_and_deviation([each.clean for each in figures])
        yield mean_and_deviation([each.worst for each in figures])
        yield max((each.verdict for each in figures), key=SEVERITIES.index) if figures else NOT_RUN


def _results(entries: Iterable[TrialRecord]) -> list[Result]:
    return [entry.result for entry in entries if entry.result is not None]


def _seeds(entries: Sequence[TrialRecord]) -> str:
    done = [str(entry.seed) for entry in entries if entry.state == "finished"]
    every = ", ".join(str(entry.seed) for entry in entries)
    return every if len(done) == len(entries) else f"{', '.join(done) or 'none'} of {every}"


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
