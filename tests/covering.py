"""Parameters for laws that hold for every combination of several factors, without testing the whole product."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def each_value(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """As few rows as show every value of every factor: row i has value i, modulo the number of values, of each."""
    return [tuple(values[row % len(values)] for values in factors) for row in range(max(map(len, factors)))]


def each_pair(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Few rows that show every pair of values of any two factors, chosen greedily; the same in every run."""
    positions = list(product(*(range(len(values)) for values in factors)))
    pairs = {row: set(combinations(enumerate(row), 2)) for row in positions}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(positions, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[best]
        chosen.append(best)
    return [tuple(values[at] for values, at in zip(factors, row, strict=True)) for row in sorted(chosen)]
