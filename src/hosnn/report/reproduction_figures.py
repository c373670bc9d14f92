"""Figures of a reproduction's report: accuracy against eps, the table as bars, training curves.

Colour stands for the neuron, line style for the training (solid adversarial, dashed clean).
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
    common_legend,
    draw_curve,
    eps_axis,
    line_style,
    new_figure,
    percent_axis,
)
from hosnn.report.reproduction_tables import MeasuredAccuracy, columns, measured_accuracy, published_number
from hosnn.results.reproduction import NetworkKind, ReproductionResult, cells_by_kind
from hosnn.results.text import NOT_RUN, percent


def curves(result: ReproductionResult) -> Figure | None:
    """Accuracy against eps, one panel per protocol that has a curve.  Bands: 95 %, or the range over several seeds."""
    by_kind = cells_by_kind(result)
    protocols = dict.fromkeys(
        protocol for cell in result.cells for protocol, evaluation in cell.evaluations.items() if evaluation.curve
    )
    if not protocols:
        return None
    figure = new_figure(WIDTH, 4.4)
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    colours = _colours(by_kind)
    for axes, protocol in zip(panels, protocols, strict=True):
        drawn = []
        for kind, cells in by_kind.items():
            evaluations = [cell.evaluations[protocol] for cell in cells if protocol in cell.evaluations]
            with_curve = [evaluation for evaluation in evaluations if evaluation.curve]
            if with_curve:
                drawn += with_curve
                draw_curve(axes, with_curve, colours[kind.neuron], kind)
        eps_axis(axes, drawn)
        axes.set_title(f"{drawn[0].curve_attack}, {protocol} protocol", fontsize=11)
    panels[0].set_ylabel("accuracy, %")
    common_legend(figure, panels)
    return figure


def bars(result: ReproductionResult) -> Figure:
    """The table as bars with intervals; diamonds are published numbers."""
    by_kind = cells_by_kind(result)
    kinds = list(
        dict.fromkeys((*by_kind, *(NetworkKind(number.neuron, number.training) for number in result.published)))
    )
    colours = _colours(kinds)
    figure = new_figure(WIDTH, 4.4)
    axes = figure.subplots()
    width = 0.86 / len(kinds)
    for column_index, column in enumerate(columns(result)):
        for kind_index, kind in enumerate(kinds):
            place = column_index - 0.43 + width * (kind_index + 0.5)
            accuracy = measured_accuracy(by_kind.get(kind, []), column)
            if accuracy is None:
                axes.text(place, 1.5, NOT_RUN, rotation=90, ha="center", va="bottom", fontsize=7.5, color="#666666")
            else:
                _bar(axes, place, width, accuracy, colours[kind.neuron], kind)
            number = published_number(result, kind, column)
            if number:
                axes.plot(
                    [place], [number.accuracy], "D", color="white", markeredgecolor="black", markersize=7, zorder=5
                )
    for kind in kinds:
        axes.bar([0], [0], label=str(kind), **_fill(colours[kind.neuron], kind))
    if result.published:
        axes.errorbar([], [], fmt="D", color="white", markeredgecolor="black", markersize=7, label="published")
    wrap = max(8, round(66 / max(1, len(result.columns))))
    headings = [textwrap.fill(column.heading, wrap) for column in columns(result)]
    axes.set_xticks(range(len(headings)), headings, fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(headings) - 0.45)
    percent_axis(axes)
    axes.set_ylabel("accuracy, %")
    common_legend(figure, [axes])
    return figure


def training_curves(result: ReproductionResult, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """Training loss and validation accuracy by epoch, one line per experiment with a log."""
    logs = {name: entries for name, entries in logs.items() if entries}
    if not logs:
        return None
    kinds = {cell.experiment: cell.kind for cell in result.cells}
    colours = _colours(kinds.values())
    figure = new_figure(WIDTH, 3.6)
    panels = figure.subplots(1, 2)
    for name, entries in logs.items():
        kind = kinds.get(name)
        epochs = [entry["epoch"] for entry in entries]
        line: dict[str, Any] = {
            "color": colours[kind.neuron] if kind else OTHERS[-1],
            "ls": line_style(kind),
            "marker": ".",
        }
        panels[0].plot(epochs, [entry["loss"] for entry in entries], label=_run_label(kind, name, result), **line)
        panels[1].plot(epochs, [100 * entry["validation_accuracy"] for entry in entries], **line)
    panels[0].set_ylabel("training loss")
    panels[1].set_ylabel("validation accuracy, %")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    common_legend(figure, panels)
    return figure


def _bar(axes: Axes, place: float, width: float, accuracy: MeasuredAccuracy, colour: str, kind: NetworkKind) -> None:
    solid = kind.training != "clean"
    axes.bar(place, 100 * accuracy.mean, width * 0.92, **_fill(colour, kind))
    error = [[100 * (accuracy.mean - accuracy.low)], [100 * (accuracy.high - accuracy.mean)]]
    axes.errorbar(place, 100 * accuracy.mean, yerr=np.maximum(error, 0), color="black", lw=1, capsize=2)
    inside = accuracy.mean > 0.16
    box = {"facecolor": colour if solid else "white", "edgecolor": "none", "pad": 1.0}
    axes.text(
        place,
        2 if inside else 100 * accuracy.high + 2.5,
        percent(accuracy.mean),
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=8.5,
        color="white" if solid and inside else INK,
        bbox=box if inside else None,
    )


def _run_label(kind: NetworkKind | None, name: str, result: ReproductionResult) -> str:
    """A run in the legend: its network, with the seed if there are several; its own name if it is no cell."""
    if kind is None:
        return name
    seed = next(cell.seed for cell in result.cells if cell.experiment == name)
    return f"{kind}, seed {seed}" if len({cell.seed for cell in result.cells}) > 1 else str(kind)


def _fill(colour: str, kind: NetworkKind) -> dict[str, Any]:
    solid = kind.training != "clean"
    return {"facecolor": colour if solid else "white", "edgecolor": colour, "hatch": None if solid else "////"}


def _colours(kinds: Iterable[NetworkKind]) -> dict[str, str]:
    names = dict.fromkeys(kind.neuron for kind in kinds)
    spare = [name for name in names if name not in NEURONS]
    return NEURONS | {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(spare)}
