"""All measurements in one call."""

from collections.abc import Callable
from typing import Any

from hosnn.theory.study.effort import Effort
from hosnn.theory.study.feedback import feedback
from hosnn.theory.study.growth import growth
from hosnn.theory.study.recursion import recursion
from hosnn.theory.study.remedies import remedies
from hosnn.theory.study.short_runs import short_runs
from hosnn.theory.study.stability import stability

PARTS: dict[str, Callable[[Effort], dict[str, Any]]] = {
    "recursion": recursion,
    "feedback": feedback,
    "stability": stability,
    "growth": growth,
    "remedies": remedies,
    "short_runs": short_runs,
}


def study(effort: Effort, begin: Callable[[str], None] = lambda part: None) -> dict[str, Any]:
    """Every part's numbers, ready for JSON; `begin` is called with the name of each part before it runs."""
    results: dict[str, Any] = {"effort": {"neurons": effort.neurons, "steps": effort.steps, "seed": effort.seed}}
    for name, measure in PARTS.items():
        begin(name)
        results[name] = measure(effort)
    return results
