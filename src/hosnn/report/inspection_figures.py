"""Figures of one inspection: errors and thresholds over time by layer, energy by condition.

Each figure is None where the inspection has nothing to draw.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from hosnn.names import inline
from hosnn.report.plotting import INK, NEURONS, OTHERS, WIDTH, common_legend, new_figure
from hosnn.results.inspection import Inspection, LayerActivity, MembraneError

CONDITIONS = (INK, NEURONS["LIF"], NEURONS["TA-LIF"], *OTHERS)
"""Colours of clean and of the disturbances, in turn."""

MOST_LAYERS = 12
"""Panels of a figure; of more layers, evenly spaced ones are drawn."""

PARTS = {"synapses": NEURONS["TA-LIF"], "neurons": OTHERS[2], "trace filter": OTHERS[3], "adaptation": NEURONS["LIF"]}
"""Parts of the energy and their colours."""


def errors_figure(result: Inspection, kind: str) -> Figure | None:
    """Mean square errors over time: solid the network, dashed its copy with k = 0.

    kind  from_signature or from_clean
    """

    def draw(axes: Axes, layer: LayerActivity, name: str, colour: str) -> None:
        for error, style, suffix in ((layer.error, "-", ""), (layer.error_without_adaptation, "--", ", all k = 0")):
            values = () if error is None else getattr(error, kind)
            if values:
                axes.plot(_steps(values), values, style, color=colour, marker=".", label=name + suffix)

    figure = _by_layer(result, lambda layer: bool(getattr(layer.error, kind)), draw)
    if figure is None:
        return None
    if min((value for error in _all_errors(result) for value in getattr(error, kind)), default=0) > 0:
        for axes in figure.axes:
            axes.set_yscale("log")
            for choose in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                choose(LogFormatter(minor_thresholds=(1, 0.4)))
    return figure


def thresholds_figure(result: Inspection) -> Figure | None:
    """Mean thresholds over time of the layers that adapt."""
    adaptive = {layer.layer for layer in result.adaptive}

    def draw(axes: Axes, layer: LayerActivity, name: str, colour: str) -> None:
        axes.plot(_steps(layer.threshold), layer.threshold, color=colour, marker=".", label=name)

    return _by_layer(result, lambda layer: layer.layer in adaptive, draw)


def energy_figure(result: Inspection) -> Figure | None:
    """Energy per image by part, a bar for each condition, and of the same layers as an ANN."""
    energies = result.energies()
    if not energies:
        return None
    figure = new_figure(WIDTH, 1.3 + 0.45 * (len(energies) + 1))
    axes = figure.subplots()
    places = np.arange(len(energies))
    left = np.zeros(len(energies))
    for part, colour in PARTS.items():
        values = np.array([energy.picojoule[part] / 1e6 for energy in energies.values()])
        axes.barh(places, values, left=left, color=colour, label=part)
        left += values
    ann = next(iter(energies.values())).picojoule["ann"] / 1e6
    axes.barh(len(energies), ann, color="#BBBBBB")
    for place, value in enumerate([*left, ann]):
        axes.annotate(f"{value:.3g}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks([*places, len(energies)], [*map(inline, energies), "ANN, once"], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("energy per image, µJ")
    common_legend(figure, [axes])
    return figure


def layers_drawn(names: Sequence[str]) -> list[str]:
    """The layers that figures have a panel for: all, or MOST_LAYERS at equal distances."""
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_LAYERS)).round().astype(int))
    return [names[number] for number in chosen] if names else []


def _by_layer(
    result: Inspection,
    has: Callable[[LayerActivity], bool],
    draw: Callable[[Axes, LayerActivity, str, str], None],
) -> Figure | None:
    """A panel for each layer that `has` something in any condition, in which `draw` draws every condition."""
    activities = [layer for condition in result.conditions for layer in condition.layers if has(layer)]
    names = layers_drawn(list(dict.fromkeys(layer.layer for layer in activities)))
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(WIDTH, 2.5 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels.flat, names, strict=False):
        for condition, colour in zip(result.conditions, _colours(len(result.conditions)), strict=True):
            for layer in condition.layers:
                if layer.layer == name and has(layer):
                    draw(axes, layer, inline(condition.name), colour)
        axes.set_title(inline(name), fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[-1]:
        axes.set_xlabel("time step")
    common_legend(figure, panels.flat[: len(names)])
    return figure


def _all_errors(result: Inspection) -> list[MembraneError]:
    layers = [layer for condition in result.conditions for layer in condition.layers]
    errors = [error for layer in layers for error in (layer.error, layer.error_without_adaptation)]
    return [error for error in errors if error is not None]


def _colours(count: int) -> list[str]:
    return [CONDITIONS[number % len(CONDITIONS)] for number in range(count)]


def _steps(values: Sequence[float]) -> list[int]:
    return list(range(1, len(values) + 1))
