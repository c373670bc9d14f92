"""The networks of a reproduction compared image by image in the worst case, seed by seed.  Pure functions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from hosnn.names import markdown
from hosnn.report.reproduction_tables import WORST, columns
from hosnn.results.paired_test import PairedTest, compare, paired_texts
from hosnn.results.reproduction import NetworkKind, ReproductionResult
from hosnn.results.statistics import holm
from hosnn.results.text import markdown_rule, table_row

HEADS = ("compared", "seed", "first", "second", "first minus second", "only first right", "only second right", "p")
CAPTION = (
    "Worst case in points, paired by image [95 % interval]; p: McNemar's exact test, corrected for all rows (Holm)"
)


@dataclass(frozen=True)
class PairedNetworks:
    """Two networks of one seed in one column of the table.

    p_value  corrected for all pairs of the reproduction (Holm)
    """

    heading: str
    seed: int
    first: NetworkKind
    second: NetworkKind
    paired: PairedTest
    p_value: float

    @property
    def texts(self) -> tuple[str, ...]:
        """One text for each of `HEADS`."""
        test = paired_texts(self.paired, self.p_value)
        return (self.heading, str(self.seed), str(self.first), str(self.second), *test)


def paired_networks(result: ReproductionResult) -> list[PairedNetworks]:
    """Every pair of networks of one seed, for each column with a worst case that both were measured in."""
    found = list(_pairs(result))
    corrected = holm([pair.paired.p_value for pair in found])
    return [replace(pair, p_value=p_value) for pair, p_value in zip(found, corrected, strict=True)]


def paired_markdown(result: ReproductionResult) -> str:
    """The pairs as a Markdown table; "" if there are none."""
    pairs = paired_networks(result)
    if not pairs:
        return ""
    rows = [table_row(tuple(map(markdown, pair.texts))) for pair in pairs]
    return "\n".join([f"{CAPTION}.", "", table_row(HEADS), markdown_rule(len(HEADS), texts=4), *rows])


def _pairs(result: ReproductionResult) -> Iterator[PairedNetworks]:
    """The pairs, p-values not corrected.  Evaluations of other images, or of more attacks, are not paired."""
    for column in (column for column in columns(result) if column.attack == WORST):
        measured = [(cell, evaluation) for cell in result.cells if (evaluation := cell.evaluation(column.protocol))]
        for (first, one), (second, other) in combinations(measured, 2):
            if first.seed == second.seed and (one.protocol, one.samples) == (other.protocol, other.samples):
                paired = compare(one, other)
                yield PairedNetworks(column.heading, first.seed, first.kind, second.kind, paired, paired.p_value)
