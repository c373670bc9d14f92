"""A finding about an evaluation, as a value: does its number mean what it says?"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["pass", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("pass", "warn", "fail")
"""From good to bad."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    name      a few words, e.g. "zero gradients"
    severity  fail: the robust accuracy must not be believed; warn: it needs a closer look
    figure    what was measured, as text with its unit, e.g. "3.5 % of 200 images"
    value     the same as a number, NaN if there is none
    meaning   one sentence for a newcomer: what it means, and what to do about it
    """

    name: str
    severity: Severity
    figure: str
    value: float
    meaning: str


def not_run(name: str, reason: str) -> Check:
    """A check whose data are missing: a warning, since nothing was shown."""
    return Check(
        name,
        "warn",
        f"not run: {reason}",
        math.nan,
        "A check without data shows nothing in either direction; provide what it needs, or read the number without it.",
    )


def worst(checks: Iterable[Check]) -> Severity:
    """The worst severity among the checks; "pass" without any."""
    return max((check.severity for check in checks), key=SEVERITIES.index, default="pass")
