"""Accuracy of the spiking networks that an ANN twin was converted to, against their time steps."""

import re
from collections.abc import Iterator

from matplotlib.figure import Figure

from hosnn.report.plotting import INK, NEURONS, OTHERS, WIDTH, common_legend, new_figure, percent_axis
from hosnn.report.reproduction_tables import CLEAN, WORST, Column, columns, measured_accuracy
from hosnn.results.reproduction import NetworkKind, ReproductionResult, cells_by_kind

CONVERTED = re.compile(r"converted, (\d+) steps")
"""The neurons of a converted network, as `Cell.neuron` names them."""


def against_steps(result: ReproductionResult) -> Figure | None:
    """Clean accuracy and worst cases against time steps, with 95 % intervals or the range over seeds; dotted lines are
    the ANN twin's.  None if no networks were converted."""
    by_kind = cells_by_kind(result)
    converted = sorted((int(found[1]), kind) for kind in by_kind if (found := CONVERTED.fullmatch(kind.neuron)))
    if not converted:
        return None
    twin = by_kind.get(NetworkKind("ANN", converted[0][1].training), [])
    figure = new_figure(WIDTH, 4.0)
    axes = figure.subplots()
    for colour, column in zip((NEURONS["LIF"], *OTHERS), _shown(result), strict=False):
        points = [(steps, measured_accuracy(by_kind[kind], column)) for steps, kind in converted]
        known = [(steps, accuracy) for steps, accuracy in points if accuracy]
        if not known:
            continue
        means = [100 * accuracy.mean for _, accuracy in known]
        ends = [[100 * (a.mean - a.low) for _, a in known], [100 * (a.high - a.mean) for _, a in known]]
        axes.errorbar([steps for steps, _ in known], means, ends, color=colour, marker="o", label=column.heading)
        if of_twin := measured_accuracy(twin, column):
            axes.axhline(100 * of_twin.mean, color=colour, lw=1, ls=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks([steps for steps, _ in converted], [str(steps) for steps, _ in converted], color=INK)
    axes.set_xlabel("time steps (dotted: the ANN twin)")
    axes.set_ylabel("accuracy, %")
    percent_axis(axes)
    common_legend(figure, [axes])
    return figure


def _shown(result: ReproductionResult) -> Iterator[Column]:
    """Columns of clean accuracy and of worst cases."""
    return (column for column in columns(result) if column.attack in (CLEAN, WORST))
