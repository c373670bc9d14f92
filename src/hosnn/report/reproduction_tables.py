"""A comparison as tables: values with their intervals, published numbers beside them.  Pure functions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell, NetworkKind, Published, ReproductionResult, groups
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, describe_machine, inline, percent, table_row

NOT_PRINTED = "–"


@dataclass(frozen=True)
class Value:
    """An accuracy as a table shows it, fractions in [0, 1].

    low, high  Wilson's 95 % interval of one seed; the smallest and largest accuracy of several seeds
    samples    images each accuracy was measured on (the fewest, should seeds differ)
    """

    mean: float
    low: float
    high: float
    samples: int
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{percent(self.mean)} {self.spread}"

    @property
    def spread(self) -> str:
        if len(self.seeds) == 1:
            return f"[{percent(self.low)}, {percent(self.high)}]"
        return f"({percent(self.low)}–{percent(self.high)})"


class Line(NamedTuple):
    """One row of the table: a network as measured, or as somebody printed it."""

    kind: NetworkKind
    source: str
    texts: tuple[str, ...]
    measured: bool


def survivors(evaluation: Evaluation, attack: str) -> list[bool]:
    """Which samples are correct after `attack`: a row's name, "clean", or "worst" for all rows together."""
    if attack == "worst":
        return evaluation.robust
    if attack == "clean":
        return [guess == label for guess, label in zip(evaluation.clean, evaluation.labels, strict=True)]
    return evaluation.correct_after(evaluation.row(attack))


def measured(evaluation: Evaluation | None, attack: str) -> bool:
    return evaluation is not None and (attack in ("clean", "worst") or any(r.attack == attack for r in evaluation.rows))


def value(cells: Iterable[Cell], protocol: str, attack: str) -> Value | None:
    """The accuracy of a network (its seeds) under an attack of a protocol, None if it was not run."""
    found = [
        (cell.seed, survivors(cell.evaluations[protocol], attack))
        for cell in cells
        if measured(cell.evaluations.get(protocol), attack)
    ]
    if not found:
        return None
    shares = [sum(correct) / len(correct) for _, correct in found]
    low, high = wilson(sum(found[0][1]), len(found[0][1])) if len(found) == 1 else (min(shares), max(shares))
    samples = min(len(correct) for _, correct in found)
    return Value(math.fsum(shares) / len(shares), low, high, samples, tuple(seed for seed, _ in found))


def published(comparison: ReproductionResult, kind: NetworkKind, column: tuple[str, str, str]) -> Published | None:
    """The number printed elsewhere that belongs in a column: of the authors' protocol, or of clean images."""
    _, protocol, attack = column
    if protocol != "paper" and attack != "clean":
        return None
    fitting = (n for n in comparison.published if (n.neuron, n.training, n.attack) == (*kind, attack))
    return next(fitting, None)


def headings(comparison: ReproductionResult) -> list[str]:
    """Column headings with the number of images."""
    every = groups(comparison).values()
    found = []
    for heading, protocol, attack in comparison.columns:
        counts = {each.samples for cells in every if (each := value(cells, protocol, attack))}
        found.append(f"{heading} ({_count(counts)})" if counts else heading)
    return found


def lines(comparison: ReproductionResult) -> list[Line]:
    """All rows: each network as measured, and below it as published."""
    found = []
    every = groups(comparison)
    printed = [NetworkKind(number.neuron, number.training) for number in comparison.published]
    for kind in dict.fromkeys((*every, *printed)):
        if kind in every:
            values = [value(every[kind], protocol, attack) for _, protocol, attack in comparison.columns]
            texts = tuple(_text(each, len(every[kind])) for each in values)
            found.append(Line(kind, f"measured, {_seeds(every[kind])}", texts, True))
        numbers = [published(comparison, kind, column) for column in comparison.columns]
        for source in dict.fromkeys(number.source for number in numbers if number):
            texts = tuple(f"{n.accuracy:g}" if n and n.source == source else NOT_PRINTED for n in numbers)
            found.append(Line(kind, source, texts, False))
    return found


def markdown(comparison: ReproductionResult) -> str:
    """The comparison as a Markdown table with a line on how the numbers came about."""
    head = ("network", *headings(comparison), "source")
    rows = [
        (str(line.kind) if line.measured else f"*published:* {line.kind}", *line.texts, line.source)
        for line in lines(comparison)
    ]
    return "\n".join(
        [
            f"## {inline(comparison.title)}",
            "",
            f"Accuracy in percent on {inline(comparison.dataset)}, network {inline(comparison.network)}. "
            f"{how_to_read(comparison)}",
            "",
            table_row(head),
            "|" + "|".join([" --- ", *[" ---: "] * (len(head) - 2), " --- "]) + "|",
            *[table_row(row) for row in rows],
            "",
            inline(provenance(comparison)),
            "",
        ]
    )


def rich_table(comparison: ReproductionResult) -> Table:
    """The comparison for a terminal."""
    table = Table(
        title=Text(comparison.title), caption=Text(f"accuracy in percent on {comparison.dataset}; {how(comparison)}")
    )
    table.add_column("network")
    for heading in headings(comparison):
        table.add_column(Text(heading.replace(" (n", "\n(n")), justify="right")
    every = lines(comparison)
    for at, line in enumerate(every):
        last = at + 1 == len(every) or every[at + 1].kind != line.kind
        name = Text(str(line.kind)) if line.measured else Text(f"  published, {line.source}", style="italic")
        cells = [Text(text.replace(" [", "\n[").replace(" (", "\n(")) for text in line.texts]
        table.add_row(name, *cells, style="" if line.measured else "dim", end_section=last)
    return table


def how_to_read(comparison: ReproductionResult) -> str:
    return f"Of a measured value: {how(comparison)}."


def how(comparison: ReproductionResult) -> str:
    """What stands behind a value, by the number of seeds."""
    counts = {len({cell.seed for cell in cells}) for cells in groups(comparison).values()}
    several, one = "mean (smallest–largest over seeds)", "[Wilson 95 % interval]"
    if counts <= {1}:
        return one
    return several if 1 not in counts else f"{several}; with one seed {one}"


def provenance(comparison: ReproductionResult) -> str:
    """Protocols, seeds, versions and hardware in one paragraph, without dates."""
    evaluations = [found for cell in comparison.cells for found in cell.evaluations.values()]
    protocols = dict.fromkeys(f"{e.protocol} ({e.threat}: {e.description})" for e in evaluations)
    versions = dict.fromkeys(", ".join(f"{name} {what}" for name, what in e.versions.items()) for e in evaluations)
    machines = dict.fromkeys(describe_machine(e.machine) for e in evaluations)
    attacked = sorted({e.seed for e in evaluations})
    parts = [
        f"Protocols: {'; '.join(protocols) or 'none'}.",
        f"Training seeds: {_listed(sorted({cell.seed for cell in comparison.cells}))}; "
        f"attack seeds: {_listed(attacked)}.",
        f"Versions: {'; '.join(versions) or 'unknown'}.",
        f"Hardware: {'; '.join(machines) or 'unknown'}.",
        *_times(comparison),
    ]
    return " ".join(parts)


def _times(comparison: ReproductionResult) -> list[str]:
    phases = comparison.phases()
    total = sum(phases.values())
    if not total:
        return []
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in phases.items() if seconds)
    return [f"Wall time {total / 60:.0f} minutes: {shares}."]


def _text(found: Value | None, seeds: int) -> str:
    """A value, and of how many seeds it is should some be missing."""
    if found is None:
        return NOT_RUN
    return str(found) if len(found.seeds) == seeds else f"{found} {len(found.seeds)} of {seeds} seeds"


def _seeds(cells: Sequence[Cell]) -> str:
    seeds = [cell.seed for cell in cells]
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}"


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items)) or "none"


def _count(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"n = {low:,}" if low == high else f"n = {low:,}–{high:,}"
