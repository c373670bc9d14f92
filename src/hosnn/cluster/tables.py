"""A sweep as tables: a row per recipe and overrides, mean and standard deviation over seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from hosnn.cluster.record import Sweep, TrialRecord, TrialResult
from hosnn.names import markdown
from hosnn.results.check import VERDICTS
from hosnn.results.text import NOT_RUN, describe_machine, markdown_rule, percent, table_row


@dataclass(frozen=True)
class SweepRow:
    """A recipe with its overrides, over all seeds.

    title  the recipe, then its overrides
    seeds  those that are finished, "of" those asked for where some are not
    cells  the text of one cell for each of `headings`
    """

    title: tuple[str, ...]
    seeds: str
    cells: tuple[str, ...]


def headings(sweep: Sweep) -> list[str]:
    """Headings of the columns after recipe and seeds."""
    training = ["validation", "minutes", "CPU minutes"]
    return training if sweep.protocol is None else [*training, "clean", "worst case", "checks"]


def sweep_rows(sweep: Sweep) -> list[SweepRow]:
    """One row per recipe and overrides, in the order they were asked for."""
    groups: dict[tuple[str, tuple[str, ...]], list[TrialRecord]] = {}
    for trial in sweep.trials:
        groups.setdefault((trial.recipe, trial.overrides), []).append(trial)
    return [
        SweepRow((recipe, *overrides), _seeds(trials), tuple(_cells(sweep, trials)))
        for (recipe, overrides), trials in groups.items()
    ]


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in percent; a single value by itself."""
    if len(values) < 2:
        return percent(values[0]) if values else NOT_RUN
    return f"{percent(statistics.fmean(values))} ± {percent(statistics.stdev(values))}"


def markdown_sweep(sweep: Sweep) -> str:
    """The sweep as a Markdown page: caption, table, failed trials, versions and hardware."""
    head = ("recipe", "seeds", *headings(sweep))
    return "\n".join(
        [
            "## Sweep",
            "",
            f"{caption(sweep)}.",
            "",
            table_row(head),
            markdown_rule(len(head), 2),
            *(table_row((markdown(" ".join(row.title)), row.seeds, *row.cells)) for row in sweep_rows(sweep)),
            "",
            *(f"- not done: {markdown(text)}" for text in failures(sweep)),
            *([""] if failures(sweep) else []),
            markdown(provenance(sweep)),
            "",
        ]
    )


def rich_sweep(sweep: Sweep) -> Table:
    """The sweep for a terminal."""
    table = Table(title="sweep", caption=Text(caption(sweep)))
    table.add_column("recipe", overflow="fold")
    for heading in ("seeds", *headings(sweep)):
        table.add_column(heading, justify="right")
    for row in sweep_rows(sweep):
        table.add_row(*map(Text, ("\n".join(row.title), row.seeds, *row.cells)))
    return table


def caption(sweep: Sweep) -> str:
    """What the numbers in the table are."""
    evaluations = [result.evaluation for result in _results(sweep.trials) if result.evaluation is not None]
    images = _listed(f"{count:,}" for count in sorted({evaluation.samples for evaluation in evaluations}))
    what = f"{sweep.protocol}, {sweep.threat}, {images} {sweep.split} images"
    under = f"; clean and worst case: {what}" if evaluations else ""
    several = "; mean ± standard deviation over seeds" if len(sweep.seeds) > 1 else ""
    shared = f"; all with {' '.join(sweep.settings)}" if sweep.settings else ""
    minutes = "minutes of training, without the start's"
    return f"Accuracy in percent, on the validation split{under}{several}; {minutes}{shared}"


def failures(sweep: Sweep) -> list[str]:
    """Every error once, after the names of the trials that failed with it."""
    names_of: dict[str, list[str]] = {}
    for trial in sweep.trials:
        if trial.state == "failed":
            names_of.setdefault(trial.error, []).append(trial.name)
    return [f"{', '.join(names)}: {error}" for error, names in names_of.items()]


def provenance(sweep: Sweep) -> str:
    """Versions and hardware in one paragraph, without dates."""
    results = _results(sweep.trials)
    versions = _listed(", ".join(f"{name} {what}" for name, what in result.versions.items()) for result in results)
    machines = _listed(describe_machine(result.machine) for result in results if result.machine)
    return f"Versions: {versions or 'unknown'}. Hardware: {machines or 'unknown'}."


def _cells(sweep: Sweep, trials: Sequence[TrialRecord]) -> Iterable[str]:
    results = _results(trials)
    yield mean_and_deviation([result.validation for result in results])
    for seconds in ([result.seconds for result in results], [result.cpu_seconds for result in results]):
        yield f"{statistics.fmean(seconds) / 60:.1f}" if seconds else NOT_RUN
    if sweep.protocol is not None:
        evaluations = [result.evaluation for result in results if result.evaluation is not None]
        yield mean_and_deviation([evaluation.clean for evaluation in evaluations])
        yield mean_and_deviation([evaluation.worst for evaluation in evaluations])
        yield max((evaluation.verdict for evaluation in evaluations), key=VERDICTS.index, default=NOT_RUN)


def _results(trials: Iterable[TrialRecord]) -> list[TrialResult]:
    return [trial.result for trial in trials if trial.result is not None]


def _seeds(trials: Sequence[TrialRecord]) -> str:
    """Seeds that are finished, of those asked for where some are not."""
    finished = ", ".join(str(trial.seed) for trial in trials if trial.state == "finished")
    every = ", ".join(str(trial.seed) for trial in trials)
    return every if finished == every else f"{finished or 'none'} of {every}"


def _listed(texts: Iterable[str]) -> str:
    """Each text once, with semicolons between."""
    return "; ".join(dict.fromkeys(texts))
