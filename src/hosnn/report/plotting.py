"""What all figures share: size, colours, axes, and their bytes as SVG."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator

from hosnn.report.phrases import size
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import NetworkKind
from hosnn.robustness.balls import Events, format_eps
from hosnn.robustness.threats import Threat

WIDTH = 8.4
"""Of a figure over the whole page, in inches."""

NEURONS = {"LIF": "#D55E00", "TA-LIF": "#0072B2"}
"""Colours of the two neurons (Okabe & Ito's palette, safe for the colour-blind)."""

OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#7A7A7A")
"""Colours of anything else."""

INK = "#222222"


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure; letters are outlines, so no font is needed."""
    without_formulas(figure)
    with matplotlib.rc_context({"svg.hashsalt": "hosnn", "svg.fonttype": "path"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def without_formulas(drawn: Figure | Axes) -> None:
    """Show texts as they are, in place: a dollar in a name begins no formula.  Powers of ten on log axes stay."""
    powers = {
        label
        for axes in (drawn.axes if isinstance(drawn, Figure) else [drawn])
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log"
        for label in axis.get_ticklabels(which="both")
    }
    for text in drawn.findobj(Text):
        if isinstance(text, Text) and text not in powers:
            text.set_parse_math(False)


def data_uri(picture: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture).decode()


def line_style(kind: NetworkKind | None) -> str:
    """Dashed for a network trained on clean images, else solid."""
    return "--" if kind is not None and kind.training == "clean" else "-"


def draw_curve(axes: Axes, evaluations: Sequence[Evaluation], colour: str, kind: NetworkKind | None = None) -> None:
    """Accuracy against eps, the mean over evaluations (seeds), with its band: 95 %, or the range over seeds."""
    curves = [evaluation.curve_points() for evaluation in evaluations]
    eps = [point_eps for point_eps, _, _ in curves[0]]
    shares = np.array(
        [[share for _, share, _ in curve] for curve in curves if [point_eps for point_eps, _, _ in curve] == eps]
    )
    low, high = (
        zip(*(interval for _, _, interval in curves[0]), strict=True)
        if len(shares) == 1
        else (shares.min(0), shares.max(0))
    )
    places = _positions(eps)
    axes.fill_between(places, 100 * np.array(low), 100 * np.array(high), color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        places, 100 * shares.mean(0), color=colour, ls=line_style(kind), marker="o", markersize=4, label=str(kind or "")
    )


def eps_axis(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """The axes of accuracy against eps, with the evaluation's own eps and the accuracy of guessing."""
    budgets = [eps for eps, _, _ in evaluations[0].curve_points()]
    axes.xaxis.set_major_locator(FixedLocator(_positions(budgets)))
    axes.xaxis.set_minor_locator(NullLocator())
    ball = Threat.parse(evaluations[0].threat).ball
    events = isinstance(ball, Events)
    unit = ball.maximum if isinstance(ball, Events) else 255
    whole = all(math.isclose(unit * eps, round(unit * eps), abs_tol=1e-6) for eps in budgets)
    axes.set_xticklabels([f"{unit * eps:.0f}" if whole else format_eps(eps) for eps in budgets])
    axes.set_xlabel("events" if events else f"eps ({ball.name})" + (", /255" if whole and any(budgets) else ""))
    if min(budgets[1:]) <= ball.eps <= max(budgets):
        place = _positions([*budgets, ball.eps])[-1]
        axes.axvline(place, color="#888888", lw=0.8, ls=":")
        axes.text(place + 0.06, 99, size(ball.eps, evaluations[0].threat), fontsize=9, color="#555555", va="top")
    chance_line(axes, evaluations[0])
    percent_axis(axes)


def chance_line(axes: Axes, evaluation: Evaluation) -> None:
    """The accuracy of guessing among the classes of the images."""
    chance = 100 / len(set(evaluation.labels))
    axes.axhline(chance, color="#888888", lw=0.8, ls=":")
    style: dict[str, Any] = {"va": "center", "fontsize": 9, "color": "#555555"}
    axes.text(1.01, chance, "chance", transform=axes.get_yaxis_transform(), **style)


def percent_axis(axes: Axes) -> None:
    """Accuracy from 0 to 100 upwards."""
    axes.set_ylim(0, 100)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def common_legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend below all panels."""
    entries: dict[str, Any] = {}
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    figure.legend(
        handles=list(entries.values()),
        labels=list(entries),
        loc="outside lower center",
        ncols=2 if len(entries) == 4 else 3,
        frameon=False,
        fontsize=9,
    )


def _positions(budgets: Sequence[float]) -> list[float]:
    """Places on the axis: 0 for eps = 0, then equal distances per doubling."""
    smallest = min((eps for eps in budgets if eps > 0), default=1.0)
    return [0.0 if eps == 0 else 1 + math.log2(eps / smallest) for eps in budgets]
