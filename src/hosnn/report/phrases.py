"""Budgets, durations, counts and intervals as text: the same words on every page, table and figure."""

from hosnn.results.statistics import Interval
from hosnn.results.text import percent
from hosnn.robustness.balls import Events, Linf, format_eps
from hosnn.robustness.threats import Threat

NOTABLE = 0.02
"""Differences of accuracy below this are not remarked on."""

NO_VALUE = "–"
"""In a table cell that has no value."""


def budget(threat: str) -> str:
    """The budget of a threat: "8/255" in the Linf ball, "l2 1/2" in another, "20 events", with "per time step" and the
    grid of pixels where there is one, as in "8/255 (8-bit images)"."""
    parsed = Threat.parse(threat)
    ball, grid = parsed.ball, "" if parsed.bits is None else f" ({parsed.bits}-bit images)"
    if isinstance(ball, Events):
        return f"{ball.count:,} events"
    steps = " per time step" if parsed.per_step else ""
    return f"{'' if isinstance(ball, Linf) else f'{ball.name} '}{format_eps(ball.eps)}{steps}{grid}"


def size(eps: float, threat: str) -> str:
    """An eps in a ball like that of a threat: "8/255", or "20 events"."""
    ball = Threat.parse(threat).ball
    return f"{round(eps * ball.maximum):,} events" if isinstance(ball, Events) else format_eps(eps)


def interval_text(interval: Interval) -> str:
    """An interval in percent, e.g. "[41.5, 48.2]"."""
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def passes(forward: int, backward: int) -> str:
    """How many images were sent through the model."""
    return f"{forward:,} images forward, {backward:,} backward through the model, panels included"
