"""Figures of one evaluation: accuracy after each attack, against eps and steps, through each estimator, by class.

Each figure is None where the evaluation has nothing to draw.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hosnn.report.evaluation_tables import attack_rows, class_rows, most_and_least_robust, ranking, step_curves
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
NAME_WIDTH = 32  # characters of a name in one line


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
    counts = sorted({row.steps for curve in curves.values() for row in curve if row.steps > 0})
    if not counts:
        return None
    figure, axes = _single(3.6)
    for number, (name, curve) in enumerate(curves.items()):
        colour = (BLUE, ORANGE, *OTHERS)[number % (2 + len(OTHERS))]
        curve = [row for row in curve if row.steps > 0]
        places = [math.log2(row.steps) for row in curve]
        low, high = ([100 * row.interval[side] for row in curve] for side in (0, 1))
        axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
        shares = [100 * row.share for row in curve]
        axes.plot(places, shares, color=colour, marker="osD^v"[number % 5], markersize=5, label=name)
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
    """Accuracy through each gradient estimator of the search, the best for the attacker (lowest accuracy) on top."""
    rows = ranking(evaluation)
    if not rows:
        return None
    figure, axes = _single(0.9 + bars_height(len(rows)))
    for place, row in enumerate(rows):
        fill, hatch = (BLUE, None) if row.used else ("white", "////")
        axes.barh(place, 100 * row.share, 0.68, edgecolor=BLUE, facecolor=fill, hatch=hatch)
        _interval_line(axes, place, row.interval)
    if any(row.used for row in rows):
        axes.barh([0], [0], facecolor=BLUE, edgecolor=BLUE, label="used by the attacks above")
    if not all(row.used for row in rows):
        axes.barh([0], [0], facecolor="white", edgecolor=BLUE, hatch="////", label="not used")
    _name_axis(axes, [row.name for row in rows], [row.share for row in rows])
    axes.set_xlabel(f"accuracy after the search's attack, % of {rows[0].samples:,} images")
    common_legend(figure, [axes])
    return figure


def attack_bars(evaluation: Evaluation, axes: Axes) -> None:
    """Accuracy without attack, after each attack and in the worst case, from top to bottom, with 95 % intervals."""
    rows = attack_rows(evaluation)
    for place, row in enumerate(rows):
        colour = PALE if row in (rows[0], rows[-1]) else BLUE
        axes.barh(place, 100 * row.share, 0.68, facecolor=colour, edgecolor=BLUE, linewidth=0.8)
        _interval_line(axes, place, row.interval)
    _name_axis(axes, [row.name for row in rows], [row.share for row in rows])
    axes.set_xlabel(f"accuracy, % of {evaluation.samples:,} images, {evaluation.threat}")
    axes.set_title(textwrap.fill(f"{evaluation.model}: {evaluation.protocol}", 2 * NAME_WIDTH), fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def class_bars(evaluation: Evaluation, classes: Sequence[str] = ()) -> Figure | None:
    """Clean and worst-case accuracy by class, the most robust on top; of many classes the most and least robust."""
    rows = most_and_least_robust(class_rows(evaluation, classes))
    if len(rows) < 2:
        return None
    figure, axes = _single(1.0 + bars_height(len(rows)))
    for place, row in enumerate(rows):
        axes.barh(place, 100 * row.clean, 0.72, facecolor=PALE, edgecolor=BLUE, linewidth=0.8)
        axes.barh(place, 100 * row.worst, 0.42, facecolor=BLUE, edgecolor=BLUE)
        _interval_line(axes, place, row.interval)
    axes.barh([0], [0], facecolor=PALE, edgecolor=BLUE, label="clean images")
    axes.barh([0], [0], facecolor=BLUE, edgecolor=BLUE, label="worst case over all attacks")
    _name_axis(axes, [row.name for row in rows], [row.worst for row in rows])
    axes.set_xlabel("accuracy, %")
    common_legend(figure, [axes])
    return figure


def _single(height: float) -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH * 0.67, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bars_height(count: int) -> float:
    """Height in inches of horizontal bars, closer together if they are many."""
    return (0.34 if count <= 15 else 0.24) * count


def _interval_line(axes: Axes, place: int, interval: Interval) -> None:
    """The 95 % interval as a thin line."""
    middle, half = 50 * (interval.low + interval.high), 50 * (interval.high - interval.low)
    axes.errorbar(middle, place, xerr=half, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)


def _name_axis(axes: Axes, names: Sequence[str], shares: Sequence[float]) -> None:
    """The axes of horizontal bars: names on the left, the first on top, accuracies on the right."""
    axes.set_yticks(np.arange(len(names)), [textwrap.fill(name, NAME_WIDTH) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    for place, share in enumerate(shares):
        axes.text(101.5, place, percent(share), va="center", fontsize=9, color=INK)
