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
from matplotlib.ticker import FixedLocator, NullLocator

from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import NetworkKind
from hosnn.robustness.threats import Threat, format_eps

WIDTH = 8.4  # inches


NEURONS = {"LIF": "#D55E00", "TA-LIF": "#0072B2"}


OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#7A7A7A")


INK = "#222222"


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure; letters are outlines, so no font is needed."""
    with matplotlib.rc_context({"svg.hashsalt": "hosnn", "svg.fonttype": "path"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def data_uri(picture: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture).decode()


def draw_curve(axes: Axes, evaluations: Sequence[Evaluation], colour: str, kind: NetworkKind | None = None) -> None:
    """Mean over evaluations (seeds) with its band; eps at equal distances per doubling."""
    points = [evaluation.curve_points() for evaluation in evaluations]
    eps = [each[0] for each in points[0]]
    shares = np.array([[each[1] for each in one] for one in points if [each[0] for each in one] == eps])
    low, high = (
        zip(*(each[2] for each in points[0]), strict=True) if len(shares) == 1 else (shares.min(0), shares.max(0))
    )
    at = _positions(eps)
    axes.fill_between(at, 100 * np.array(low), 100 * np.array(high), color=colour, alpha=0.13, linewidth=0)
    axes.plot(at, 100 * shares.mean(0), color=colour, ls=_style(kind), marker="o", markersize=4, label=str(kind or ""))


def eps_axis(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """The axes of accuracy against eps, with the evaluation's own eps and the accuracy of guessing."""
    eps = [each[0] for each in evaluations[0].curve_points()]
    axes.xaxis.set_major_locator(FixedLocator(_positions(eps)))
    axes.xaxis.set_minor_locator(NullLocator())
    ball = Threat.parse(evaluations[0].threat).ball
    levels = all(math.isclose(255 * each, round(255 * each), abs_tol=1e-6) for each in eps)
    axes.set_xticklabels([f"{255 * each:.0f}" if levels else format_eps(each) for each in eps])
    axes.set_xlabel(f"eps ({ball.name})" + (", /255" if levels and any(eps) else ""))
    if min(eps[1:]) <= ball.eps <= max(eps):
        at = _positions([*eps, ball.eps])[-1]
        axes.axvline(at, color="#888888", lw=0.8, ls=":")
        axes.text(at + 0.06, 99, format_eps(ball.eps), fontsize=9, color="#555555", va="top")
    chance_line(axes, evaluations[0])
    percent_axis(axes)


def chance_line(axes: Axes, evaluation: Evaluation) -> None:
    """The accuracy of guessing among the classes seen."""
    chance = 100 / len(set(evaluation.labels))
    axes.axhline(chance, color="#888888", lw=0.8, ls=":")
    beside: dict[str, Any] = {"va": "center", "fontsize": 9, "color": "#555555"}
    axes.text(1.01, chance, "chance", transform=axes.get_yaxis_transform(), **beside)


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


def _positions(eps: Sequence[float]) -> list[float]:
    smallest = min((each for each in eps if each > 0), default=1.0)
    return [0.0 if each == 0 else 1 + math.log2(each / smallest) for each in eps]


def _style(kind: NetworkKind | None) -> str:
    return "--" if kind is not None and kind.training == "clean" else "-"
