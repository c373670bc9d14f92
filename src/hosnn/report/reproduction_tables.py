"""The table of a reproduction: measured accuracies with their intervals, published numbers below them.  Pure functions.

Accuracies are fractions in [0, 1]; published numbers are in percent, as printed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from hosnn.names import markdown
from hosnn.report.phrases import NO_VALUE
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell, NetworkKind, Published, ReproductionResult, cells_by_kind
from hosnn.results.roles import Strength
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, describe_machine, percent, table_row

CLEAN, WORST = "clean", "worst"
"""What a column may show in place of one attack: accuracy without attack, and the worst case over all attacks."""


class Column(NamedTuple):
    """A column of the table: an attack of a protocol, or `CLEAN` or `WORST`."""

    heading: str
    protocol: str
    attack: str


@dataclass(frozen=True, kw_only=True)
class MeasuredAccuracy:
    """The accuracy of one network under one attack, averaged over training seeds.

    low, high  Wilson's 95 % interval of one seed; the smallest and largest accuracy of several seeds
    samples    images each accuracy was measured on (the fewest, should seeds differ)
    """

    mean: float
    low: float
    high: float
    samples: int
    seeds: tuple[int, ...]

    @property
    def spread(self) -> str:
        """The interval as text: in brackets Wilson's, in parentheses the range over seeds."""
        if len(self.seeds) == 1:
            return f"[{percent(self.low)}, {percent(self.high)}]"
        return f"({percent(self.low)}–{percent(self.high)})"


class TableCell(NamedTuple):
    """What a cell shows: a number, or why there is none, and the uncertainty beside or below it ("" for none)."""

    text: str
    spread: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.spread}" if self.spread else self.text


class Heading(NamedTuple):
    """A column's heading, and how many images it was measured on, e.g. "n = 1,000" ("" if unknown)."""

    text: str
    images: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.images})" if self.images else self.text


class TableRow(NamedTuple):
    """One row of the table: a network as measured here, or as published elsewhere.

    source  the seeds it was measured with, or where it was published
    """

    kind: NetworkKind
    source: str
    cells: tuple[TableCell, ...]
    measured: bool


def columns(result: ReproductionResult) -> list[Column]:
    return [Column(*column) for column in result.columns]


def correct_samples(evaluation: Evaluation, attack: str, by_order: bool = False) -> list[bool]:
    """Which samples are correct after an attack of the evaluation, without attack (`CLEAN`), or after all (`WORST`).

    by_order  under attack, the order of the classes decides a tie
    """
    if attack == WORST:
        return evaluation.robust_by_argmax if by_order else evaluation.robust
    if attack == CLEAN:
        return evaluation.correct_when_clean
    row = evaluation.row(attack)
    if by_order:
        return [predicted == label for predicted, label in zip(row.predictions, evaluation.labels, strict=True)]
    return evaluation.correct_after(row)


def was_run(evaluation: Evaluation, attack: str) -> bool:
    return attack in (CLEAN, WORST) or any(row.attack == attack for row in evaluation.rows)


def measured_accuracy(cells: Iterable[Cell], column: Column) -> MeasuredAccuracy | None:
    """The accuracy of a network (its cells, one per seed) in a column; None if that was not run."""
    correct = {
        cell.seed: correct_samples(evaluation, column.attack)
        for cell in cells
        if (evaluation := cell.evaluation(column.protocol)) and was_run(evaluation, column.attack)
    }
    if not correct:
        return None
    shares = [sum(of_seed) / len(of_seed) for of_seed in correct.values()]
    low, high = min(shares), max(shares)
    if len(correct) == 1:
        (only,) = correct.values()
        low, high = wilson(sum(only), len(only))
    samples = min(len(of_seed) for of_seed in correct.values())
    mean = math.fsum(shares) / len(shares)
    return MeasuredAccuracy(mean=mean, low=low, high=high, samples=samples, seeds=tuple(correct))


def is_published(result: ReproductionResult, column: Column) -> bool:
    """Whether a column's attacks are those of the publication, run as they are."""
    return any(
        evaluation.strength is Strength.PUBLISHED_ATTACKS
        for cell in result.cells
        if (evaluation := cell.evaluation(column.protocol))
    )


def published_number(result: ReproductionResult, kind: NetworkKind, column: Column) -> Published | None:
    """The published number that belongs in a column: of the authors' protocol, or of clean images."""
    if not is_published(result, column) and column.attack != CLEAN:
        return None
    fitting = (
        number
        for number in result.published
        if (number.neuron, number.training, number.attack) == (*kind, column.attack)
    )
    return next(fitting, None)


def headings(result: ReproductionResult) -> list[Heading]:
    """The headings of the columns, each with its number of images."""
    by_kind = cells_by_kind(result).values()
    counts = [
        {accuracy.samples for cells in by_kind if (accuracy := measured_accuracy(cells, column))}
        for column in columns(result)
    ]
    return [
        Heading(column.heading, _count(samples) if samples else "")
        for column, samples in zip(columns(result), counts, strict=True)
    ]


def table_rows(result: ReproductionResult) -> list[TableRow]:
    """All rows: each network as measured, and below it as published."""
    rows = []
    by_kind = cells_by_kind(result)
    published_kinds = [NetworkKind(number.neuron, number.training) for number in result.published]
    for kind in dict.fromkeys((*by_kind, *published_kinds)):
        if kind in by_kind:
            cells = by_kind[kind]
            accuracies = [measured_accuracy(cells, column) for column in columns(result)]
            texts = tuple(_cell(accuracy, len(cells)) for accuracy in accuracies)
            rows.append(TableRow(kind, f"measured, {_seeds(cells)}", texts, True))
        numbers = [published_number(result, kind, column) for column in columns(result)]
        for source in dict.fromkeys(number.source for number in numbers if number):
            texts = tuple(
                TableCell(f"{number.accuracy:g}" if number and number.source == source else NO_VALUE)
                for number in numbers
            )
            rows.append(TableRow(kind, source, texts, False))
    return rows


def reproduction_markdown(result: ReproductionResult) -> str:
    """The table as Markdown, with a line on how the numbers came about."""
    head = ("network", *(markdown(str(heading)) for heading in headings(result)), "source")
    rows = [
        (
            ("" if row.measured else "*published:* ") + markdown(str(row.kind)),
            *map(str, row.cells),
            markdown(row.source),
        )
        for row in table_rows(result)
    ]
    return "\n".join(
        [
            f"## {markdown(result.title)}",
            "",
            f"Accuracy in percent on {markdown(result.dataset)}, network {markdown(result.network)}. "
            f"Of a measured value: {what_is_shown(result)}.",
            "",
            table_row(head),
            "|" + "|".join([" --- ", *[" ---: "] * (len(head) - 2), " --- "]) + "|",
            *[table_row(row) for row in rows],
            "",
            markdown(provenance(result)),
            "",
        ]
    )


def rich_table(result: ReproductionResult) -> Table:
    """The table for a terminal."""
    table = Table(
        title=Text(result.title), caption=Text(f"accuracy in percent on {result.dataset}; {what_is_shown(result)}")
    )
    table.add_column("network")
    for heading in headings(result):
        table.add_column(_two_lines(heading.text, f"({heading.images})" if heading.images else ""), justify="right")
    rows = table_rows(result)
    for place, row in enumerate(rows):
        last_of_kind = place + 1 == len(rows) or rows[place + 1].kind != row.kind
        name = Text(str(row.kind)) if row.measured else Text(f"  published, {row.source}", style="italic")
        texts = [_two_lines(cell.text, cell.spread) for cell in row.cells]
        table.add_row(name, *texts, style="" if row.measured else "dim", end_section=last_of_kind)
    return table


def what_is_shown(result: ReproductionResult) -> str:
    """What a measured value and its interval are, by the number of seeds."""
    shown = [measured_accuracy(cells, Column(*it)) for cells in cells_by_kind(result).values() for it in result.columns]
    counts = {len(accuracy.seeds) for accuracy in shown if accuracy is not None}
    several, one = "mean (smallest–largest over seeds)", "[Wilson 95 % interval]"
    if counts <= {1}:
        return one
    return several if 1 not in counts else f"{several}; with one seed {one}"


def provenance(result: ReproductionResult) -> str:
    """Protocols, seeds, versions and hardware in one paragraph, without dates."""
    evaluations = [evaluation for cell in result.cells for evaluation in cell.evaluations.values()]
    protocols = dict.fromkeys(f"{e.protocol} ({e.threat}: {e.description})" for e in evaluations)
    versions = dict.fromkeys(
        ", ".join(f"{package} {version}" for package, version in e.versions.items()) for e in evaluations
    )
    machines = dict.fromkeys(describe_machine(e.machine) for e in evaluations)
    attack_seeds = sorted({e.seed for e in evaluations})
    parts = [
        f"Protocols: {'; '.join(protocols) or 'none'}.",
        f"Training seeds: {_listed(sorted({cell.seed for cell in result.cells}))}; "
        f"attack seeds: {_listed(attack_seeds)}.",
        *_precision(result),
        f"Versions: {'; '.join(versions) or 'unknown'}.",
        f"Hardware: {'; '.join(machines) or 'unknown'}.",
        *_wall_time(result),
    ]
    return " ".join(parts)


def _precision(result: ReproductionResult) -> list[str]:
    """The precisions of training, where they were recorded and are not float32 alone."""
    found = list(dict.fromkeys(cell.precision for cell in result.cells if cell.precision))
    return [f"Trained in {' and '.join(found)}."] if found and found != ["32-true"] else []


def _wall_time(result: ReproductionResult) -> list[str]:
    phases = result.phases()
    total = sum(phases.values())
    if not total:
        return []
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in phases.items() if seconds)
    return [f"Time {total / 60:.0f} minutes, summed over networks that may have run side by side: {shares}."]


def _cell(accuracy: MeasuredAccuracy | None, seeds: int) -> TableCell:
    """An accuracy, with the number of seeds it is of should some of them be missing."""
    if accuracy is None:
        return TableCell(NOT_RUN)
    missing = f" {len(accuracy.seeds)} of {seeds} seeds" if len(accuracy.seeds) < seeds else ""
    return TableCell(percent(accuracy.mean), f"{accuracy.spread}{missing}")


def _two_lines(text: str, below: str) -> Text:
    return Text(f"{text}\n{below}" if below else text)


def _seeds(cells: Sequence[Cell]) -> str:
    seeds = [cell.seed for cell in cells]
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}"


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items)) or "none"


def _count(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n = {low:,}" if low == high else f"n = {low:,}–{high:,}"
