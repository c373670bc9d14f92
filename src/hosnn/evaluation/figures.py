"""Pictures of the report: matplotlib figures without global state, and their bytes as self-contained SVG.

Colour tells the neuron (LIF orange, TA-LIF blue: Okabe & Ito's palette, safe for the colour-blind), line style the
training (solid adversarial, dashed clean).
"""

import base64
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hosnn.evaluation.comparison import Comparison
from hosnn.evaluation.result import Evaluation
from hosnn.evaluation.tables import Kind, groups, percent, published, value
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


def curves(comparison: Comparison) -> Figure | None:
    """Accuracy against eps, one panel per protocol that has a curve.  Bands: 95 %, or the range over several seeds."""
    every = groups(comparison)
    names = dict.fromkeys(n for cell in comparison.cells for n, e in cell.evaluations.items() if e.curve)
    if not names:
        return None
    figure = new_figure(WIDTH, 4.4)
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    colours = _colours(every)
    for axes, name in zip(panels, names, strict=True):
        shown = []
        for kind, cells in every.items():
            found = [cell.evaluations[name] for cell in cells if name in cell.evaluations]
            if any(e.curve for e in found):
                shown += found
                draw_curve(axes, [e for e in found if e.curve], colours[kind.neuron], kind)
        eps_axis(axes, shown)
        axes.set_title(f"{shown[0].curve[0].attack.partition(' @ ')[0]}, {name} protocol", fontsize=11)
    panels[0].set_ylabel("accuracy, %")
    common_legend(figure, panels)
    return figure


def bars(comparison: Comparison) -> Figure:
    """The table as bars with intervals; diamonds are published numbers."""
    every = groups(comparison)
    kinds = list(dict.fromkeys((*every, *(Kind(p.neuron, p.training) for p in comparison.published))))
    colours = _colours(kinds)
    figure = new_figure(WIDTH, 4.4)
    axes = figure.subplots()
    width = 0.86 / len(kinds)
    for column, (_, protocol, attack) in enumerate(comparison.columns):
        for place, kind in enumerate(kinds):
            at = column - 0.43 + width * (place + 0.5)
            found = value(every.get(kind, []), protocol, attack)
            if found is None:
                axes.text(at, 1.5, "not run", rotation=90, ha="center", va="bottom", fontsize=7.5, color="#666666")
            else:
                _bar(axes, at, width, found.mean, (found.low, found.high), colours[kind.neuron], kind)
            number = published(comparison, kind, comparison.columns[column])
            if number:
                axes.plot([at], [number.accuracy], "D", color="white", markeredgecolor="black", markersize=7, zorder=5)
    for kind in kinds:
        axes.bar([0], [0], label=str(kind), **_look(colours[kind.neuron], kind))
    if comparison.published:
        axes.errorbar([], [], fmt="D", color="white", markeredgecolor="black", markersize=7, label="published")
    wrap = max(8, round(66 / max(1, len(comparison.columns))))
    axes.set_xticks(
        range(len(comparison.columns)), [textwrap.fill(h, wrap) for h, _, _ in comparison.columns], fontsize=9
    )
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(comparison.columns) - 0.45)
    percent_axis(axes)
    axes.set_ylabel("accuracy, %")
    common_legend(figure, [axes])
    return figure


def training_curves(comparison: Comparison, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """Training loss and validation accuracy by epoch, one line per experiment with a log."""
    logs = {name: entries for name, entries in logs.items() if entries}
    if not logs:
        return None
    kinds = {cell.experiment: Kind(cell.neuron, cell.training) for cell in comparison.cells}
    colours = _colours(kinds.values())
    figure = new_figure(WIDTH, 3.6)
    panels = figure.subplots(1, 2)
    for name, entries in logs.items():
        kind = kinds.get(name)
        epochs = [entry["epoch"] for entry in entries]
        look: dict[str, Any] = {
            "color": colours[kind.neuron] if kind else OTHERS[-1],
            "ls": _style(kind),
            "marker": ".",
        }
        panels[0].plot(epochs, [entry["loss"] for entry in entries], label=_of_run(kind, name, comparison), **look)
        panels[1].plot(epochs, [100 * entry["validation_accuracy"] for entry in entries], **look)
    panels[0].set_ylabel("training loss")
    panels[1].set_ylabel("validation accuracy, %")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    common_legend(figure, panels)
    return figure


def draw_curve(axes: Axes, evaluations: Sequence[Evaluation], colour: str, kind: Kind | None = None) -> None:
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


def _positions(eps: Sequence[float]) -> list[float]:
    smallest = min((each for each in eps if each > 0), default=1.0)
    return [0.0 if each == 0 else 1 + math.log2(each / smallest) for each in eps]


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


def _bar(
    axes: Axes, at: float, width: float, mean: float, spread: tuple[float, float], colour: str, kind: Kind
) -> None:
    solid = kind.training != "clean"
    axes.bar(at, 100 * mean, width * 0.92, **_look(colour, kind))
    error = [[100 * (mean - spread[0])], [100 * (spread[1] - mean)]]
    axes.errorbar(at, 100 * mean, yerr=np.maximum(error, 0), color="black", lw=1, capsize=2)
    inside = mean > 0.16
    box = {"facecolor": colour if solid else "white", "edgecolor": "none", "pad": 1.0}
    axes.text(
        at,
        2 if inside else 100 * spread[1] + 2.5,
        percent(mean),
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=8.5,
        color="white" if solid and inside else INK,
        bbox=box if inside else None,
    )


def _of_run(kind: Kind | None, name: str, comparison: Comparison) -> str:
    """A run in a legend: its network, with the seed if there are several, or its name if it is no cell."""
    if kind is None:
        return name
    seed = next(cell.seed for cell in comparison.cells if cell.experiment == name)
    return f"{kind}, seed {seed}" if len({cell.seed for cell in comparison.cells}) > 1 else str(kind)


def _look(colour: str, kind: Kind) -> dict[str, Any]:
    solid = kind.training != "clean"
    return {"facecolor": colour if solid else "white", "edgecolor": colour, "hatch": None if solid else "////"}


def _colours(kinds: Iterable[Kind]) -> dict[str, str]:
    names = dict.fromkeys(kind.neuron for kind in kinds)
    spare = [name for name in names if name not in NEURONS]
    return NEURONS | {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(spare)}


def _style(kind: Kind | None) -> str:
    return "--" if kind is not None and kind.training == "clean" else "-"


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
