"""Intervals for accuracies measured on a sample of images."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval, fractions in [0, 1]."""

    low: float
    high: float


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
