"""Pictures of one evaluation: accuracy against eps and steps, the search for the best estimator, classes apart.

Each is None where the evaluation has nothing to draw.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hosnn.report.evaluation_tables import class_lines, extremes, ranking, step_curves
from hosnn.report.plotting import (
    INK,
    NEURONS,
    OTHERS,
    WIDTH,
    chance_line,
    common_legend,
    draw_curve,
    eps_axis,
    new_figure,
    percent_axis,
)
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval
from hosnn.results.text import percent

BLUE, ORANGE = NEURONS["TA-LIF"], NEURONS["LIF"]
PALE = "#BBD6E8"
LONGEST = 32  # characters of a name in one line


def eps_curve(evaluation: Evaluation) -> Figure | None:
    """Accuracy against eps, clean images at 0."""
    if not evaluation.curve:
        return None
    figure, axes = _single(3.6)
    draw_curve(axes, [evaluation], BLUE)
    eps_axis(axes, [evaluation])
    axes.set_ylabel("accuracy, %")
    return figure


def steps_curve(evaluation: Evaluation) -> Figure | None:
    """Accuracy against the attack's steps, one line per attack, at equal distances per doubling."""
    curves = step_curves(evaluation)
    counts = sorted({line.steps for curve in curves.values() for line in curve if line.steps > 0})
    if not counts:
        return None
    figure, axes = _single(3.6)
    for place, (name, curve) in enumerate(curves.items()):
        colour = (BLUE, ORANGE, *OTHERS)[place % (2 + len(OTHERS))]
        curve = [line for line in curve if line.steps > 0]
        at = [math.log2(line.steps) for line in curve]
        low, high = ([100 * line.interval[side] for line in curve] for side in (0, 1))
        axes.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
        marker = "osD^v"[place % 5]
        axes.plot(at, [100 * line.share for line in curve], color=colour, marker=marker, markersize=5, label=name)
    axes.xaxis.set_major_locator(FixedLocator([math.log2(count) for count in counts]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{count:,}" for count in counts])
    axes.set_xlabel("steps")
    axes.set_ylabel("accuracy, %")
    chance_line(axes, evaluation)
    percent_axis(axes)
    common_legend(figure, [axes])
    return figure


def search_bars(evaluation: Evaluation) -> Figure | None:
    """The gradient estimators that the search tried, the strongest (fewest images left) on top."""
    lines = ranking(evaluation)
    if not lines:
        return None
    figure, axes = _single(0.9 + _line_height(lines))
    for place, line in enumerate(lines):
        fill, hatch = (BLUE, None) if line.chosen else ("white", "////")
        axes.barh(place, 100 * line.share, 0.68, edgecolor=BLUE, facecolor=fill, hatch=hatch)
        _spread(axes, place, line.interval)
    if any(line.chosen for line in lines):
        axes.barh([0], [0], facecolor=BLUE, edgecolor=BLUE, label="used by the attacks above")
    if not all(line.chosen for line in lines):
        axes.barh([0], [0], facecolor="white", edgecolor=BLUE, hatch="////", label="tried only")
    _across(axes, [line.name for line in lines], [line.share for line in lines])
    axes.set_xlabel(f"accuracy after the search's attack, % of {lines[0].samples:,} images")
    common_legend(figure, [axes])
    return figure


def class_bars(evaluation: Evaluation, classes: Sequence[str] = ()) -> Figure | None:
    """Clean and worst-case accuracy per class, the most robust on top; of very many classes the extremes."""
    lines = extremes(class_lines(evaluation, classes))
    if len(lines) < 2:
        return None
    figure, axes = _single(1.0 + _line_height(lines))
    for place, line in enumerate(lines):
        axes.barh(place, 100 * line.clean, 0.72, facecolor=PALE, edgecolor=BLUE, linewidth=0.8)
        axes.barh(place, 100 * line.worst, 0.42, facecolor=BLUE, edgecolor=BLUE)
        _spread(axes, place, line.interval)
    axes.barh([0], [0], facecolor=PALE, edgecolor=BLUE, label="clean images")
    axes.barh([0], [0], facecolor=BLUE, edgecolor=BLUE, label="worst case over all attacks")
    _across(axes, [line.name for line in lines], [line.worst for line in lines])
    axes.set_xlabel("accuracy, %")
    common_legend(figure, [axes])
    return figure


def _single(height: float) -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH * 0.67, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line_height(lines: Sequence[object]) -> float:
    """Height in inches of horizontal bars, closer together if they are many."""
    return (0.34 if len(lines) <= 15 else 0.24) * len(lines)


def _spread(axes: Axes, place: int, span: Interval) -> None:
    """The 95 % interval as a thin line."""
    middle, half = 50 * (span.low + span.high), 50 * (span.high - span.low)
    axes.errorbar(middle, place, xerr=half, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)


def _across(axes: Axes, names: Sequence[str], shares: Sequence[float]) -> None:
    """The axes of horizontal bars: names at the left, the first on top, numbers at the right edge."""
    axes.set_yticks(np.arange(len(names)), [textwrap.fill(name, LONGEST) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    for place, share in enumerate(shares):
        axes.text(101.5, place, percent(share), va="center", fontsize=9, color=INK)
