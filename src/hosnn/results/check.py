"""A check of an evaluation, as a value: can its numbers be believed?"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from hosnn.results.document import Name, NumberOrNaN

Severity = Literal["pass", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("pass", "warn", "fail")
"""From good to bad."""

Verdict = Literal["none", "pass", "warn", "fail"]
VERDICTS: tuple[Verdict, ...] = ("none", *SEVERITIES)
"""What all checks say together, from nothing checked to bad."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check of whether the numbers can be believed."""

    name: Name
    """What was checked, in a few words, e.g. "zero gradients"."""
    severity: Severity
    """pass; warn: the number needs a closer look; fail: the robust accuracy must not be believed."""
    figure: str
    """What was measured, with its unit, e.g. "3.5 % of 200 images"."""
    value: NumberOrNaN
    """The same as a number, null if there is none; shares as fractions of 1."""
    meaning: str
    """What it means and what to do about it, in a sentence."""


def not_run(name: str, reason: str) -> Check:
    """A check whose data are missing: a warning."""
    return Check(
        name,
        "warn",
        f"not run: {reason}",
        math.nan,
        "A check without data shows nothing in either direction; provide what it needs, or read the number without it.",
    )


def worst(checks: Iterable[Check]) -> Verdict:
    """The worst severity among the checks; "none" without any."""
    return max((check.severity for check in checks), key=SEVERITIES.index, default="none")


def tally(checks: Collection[Check]) -> str:
    """How many checks passed, and which did not: "checks: 20 pass, 1 warn (ties)".  A failure says what follows."""
    if not checks:
        return "checks: none were run"
    names = {severity: [check.name for check in checks if check.severity == severity] for severity in SEVERITIES}
    counts = [
        f"{len(those)} {severity}" + ("" if severity == "pass" else f" ({', '.join(those)})")
        for severity, those in names.items()
        if those
    ]
    unbelievable = ": this number must not be believed" if names["fail"] else ""
    return f"checks: {', '.join(counts)}{unbelievable}"
