"""Intervals for accuracies measured on a sample of images, and tests of two models on the same sample."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hosnn.errors import ConfigError


class Interval(NamedTuple):
    """A confidence interval, fractions in [0, 1]."""

    low: float
    high: float


def proportion(values: Sequence[bool]) -> float:
    """Share of true values; NaN of an empty sequence."""
    return sum(values) / len(values) if values else math.nan


def wilson(successes: int, total: int, z: float = 1.959963984540054) -> Interval:
    """Wilson's score interval for a proportion; z = 1.96 gives 95 % (Wilson 1927).

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n),  p = successes/n.  (0, 1) for total = 0.
    """
    if total == 0:
        return Interval(0.0, 1.0)
    p, weight = successes / total, z * z / total
    middle = (p + weight / 2) / (1 + weight)
    half = z * math.sqrt(p * (1 - p) / total + weight / (4 * total)) / (1 + weight)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mcnemar(first_only: int, second_only: int, mid: bool = False) -> float:
    """Exact two-sided p-value that two models err equally often, from the samples on which they disagree.

        p = 2 P(X <= min(b, c)),  X ~ Binomial(b + c, 1/2),  at most 1

    first_only, second_only  b, c: samples that only the one model, or only the other, gets right
    mid       the mid-p value, p - P(X = min(b, c)): less conservative (Fagerland, Lydersen & Laake 2013)
    Raises ConfigError for negative numbers.  Source: McNemar 1947.
    """
    fewer, total = min(first_only, second_only), first_only + second_only
    if fewer < 0:
        raise ConfigError(f"mcnemar got {first_only} and {second_only} samples; expected counts of at least 0")
    ways = tail = 1  # binomial coefficients and their sum, in exact integers
    for drawn in range(fewer):
        ways = ways * (total - drawn) // (drawn + 1)
        tail += ways
    all_ways = 1 << total
    if first_only == second_only:
        return 1.0 - (ways / all_ways / 2 if mid else 0.0)
    return (2 * tail - (ways if mid else 0)) / all_ways


def paired_interval(first_only: int, second_only: int, samples: int, z: float = 1.959963984540054) -> Interval:
    """Interval for the difference of two accuracies on the same samples; z = 1.96 gives 95 % (Bonett & Price 2012).

        p̃ - q̃ ± z sqrt((p̃ + q̃ - (p̃ - q̃)²)/(n + 2)),   p̃ = (b + 1)/(n + 2),  q̃ = (c + 1)/(n + 2)

    first_only, second_only  b, c as for `mcnemar`; samples: n, of all, 0 giving (-1, 1)
    Has a width even where the models never disagree.  Raises ConfigError if n < b + c.
    """
    _check_counts(first_only, second_only, samples)
    if samples == 0:
        return Interval(-1.0, 1.0)
    first, second = (first_only + 1) / (samples + 2), (second_only + 1) / (samples + 2)
    difference = first - second
    half = z * math.sqrt((first + second - difference * difference) / (samples + 2))
    return Interval(max(-1.0, difference - half), min(1.0, difference + half))


def bootstrap_interval(
    first_only: int, second_only: int, samples: int, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """The same interval by the percentile bootstrap over samples, each with both models' answers (Efron 1979).

    Resampling n samples means drawing the counts b, c and n - b - c from a multinomial distribution.
    Of width 0 where the models never disagree, unlike `paired_interval`.
    Raises ConfigError if n < b + c or n = 0.
    """
    _check_counts(first_only, second_only, samples)
    if samples == 0:
        raise ConfigError("bootstrap_interval got no samples; expected at least 1")
    shares = np.array([first_only, second_only, samples - first_only - second_only]) / samples
    drawn = np.random.default_rng(seed).multinomial(samples, shares, size=resamples)
    differences = (drawn[:, 0] - drawn[:, 1]) / samples
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of tests (Holm 1979), in the order given; bounds the family-wise error rate.

    The i-th smallest of m is multiplied by m - i + 1, and raised to the adjusted value before it if smaller.
    Raises ConfigError unless all are in [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ConfigError(f"holm got {list(p_values)}; expected p-values in [0, 1]")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _check_counts(first_only: int, second_only: int, samples: int) -> None:
    if min(first_only, second_only) < 0 or first_only + second_only > samples:
        raise ConfigError(
            f"a paired interval got {first_only} and {second_only} samples on which one model alone is right, of "
            f"{samples}; expected counts of at least 0 that fit"
        )
