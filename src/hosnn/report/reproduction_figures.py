"""Pictures of the report: matplotlib figures without global state, and their bytes as self-contained SVG.

Colour tells the neuron (LIF orange, TA-LIF blue: Okabe & Ito's palette, safe for the colour-blind), line style the
training (solid adversarial, dashed clean).
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hosnn.report.plotting import (
    INK,
    NEURONS,
    OTHERS,
    WIDTH,
    _style,
    common_legend,
    draw_curve,
    eps_axis,
    new_figure,
    percent_axis,
)
from hosnn.report.reproduction_tables import published, value
from hosnn.results.reproduction import NetworkKind, ReproductionResult, groups
from hosnn.results.text import percent


def curves(comparison: ReproductionResult) -> Figure | None:
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


def bars(comparison: ReproductionResult) -> Figure:
    """The table as bars with intervals; diamonds are published numbers."""
    every = groups(comparison)
    kinds = list(dict.fromkeys((*every, *(NetworkKind(p.neuron, p.training) for p in comparison.published))))
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


def training_curves(comparison: ReproductionResult, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """Training loss and validation accuracy by epoch, one line per experiment with a log."""
    logs = {name: entries for name, entries in logs.items() if entries}
    if not logs:
        return None
    kinds = {cell.experiment: NetworkKind(cell.neuron, cell.training) for cell in comparison.cells}
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


def _bar(
    axes: Axes, at: float, width: float, mean: float, spread: tuple[float, float], colour: str, kind: NetworkKind
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


def _of_run(kind: NetworkKind | None, name: str, comparison: ReproductionResult) -> str:
    """A run in a legend: its network, with the seed if there are several, or its name if it is no cell."""
    if kind is None:
        return name
    seed = next(cell.seed for cell in comparison.cells if cell.experiment == name)
    return f"{kind}, seed {seed}" if len({cell.seed for cell in comparison.cells}) > 1 else str(kind)


def _look(colour: str, kind: NetworkKind) -> dict[str, Any]:
    solid = kind.training != "clean"
    return {"facecolor": colour if solid else "white", "edgecolor": colour, "hatch": None if solid else "////"}


def _colours(kinds: Iterable[NetworkKind]) -> dict[str, str]:
    names = dict.fromkeys(kind.neuron for kind in kinds)
    spare = [name for name in names if name not in NEURONS]
    return NEURONS | {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(spare)}
