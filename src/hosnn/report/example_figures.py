"""Figures of what a network does: one neuron over time, clean images with their attacked copies."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.report.plotting import NEURONS, WIDTH, common_legend, new_figure

CLEAN, ATTACKED = "#222222", "#C2185B"


def neuron_figure(traces: Sequence[NeuronTrace]) -> Figure | None:
    """One neuron over time in each network: membrane, threshold and signature above, spikes below."""
    if not traces:
        return None
    columns = min(2, len(traces))
    rows = math.ceil(len(traces) / columns)
    figure = new_figure(WIDTH, 4.9 * rows)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[4.2, 1] * rows)
    for place in range(columns * rows):
        row, column = divmod(place, columns)
        top, bottom = panels[2 * row, column], panels[2 * row + 1, column]
        if place < len(traces):
            _draw_trace(top, bottom, traces[place])
        else:
            top.set_axis_off()
            bottom.set_axis_off()
    first = traces[0]
    figure.suptitle(
        f"Neuron {', '.join(map(str, first.neuron))} of layer {first.layer} on a clean and on an attacked image",
        fontsize=11,
    )
    common_legend(figure, panels[::2].flat)
    return figure


def example_grid(examples: Sequence[Example]) -> Figure | None:
    """A column per image: clean, the perturbation magnified, attacked; the class the network predicts is below each."""
    if not examples:
        return None
    figure = new_figure(max(4.0, 0.5 + 1.35 * len(examples)), 4.7)
    panels = figure.subplots(3, len(examples), squeeze=False)
    pairs = [_pixels(example) for example in examples]
    largest = max(float(np.abs(attacked - image).max()) for image, attacked in pairs)
    scale = max(1, math.floor(0.5 / largest)) if largest > 0 else 1
    for column, (example, (image, attacked)) in enumerate(zip(examples, pairs, strict=True)):
        pictures = (image, 0.5 + scale * (attacked - image), attacked)
        fooled = example.adversarial_prediction != example.label
        captions = (
            (f"predicts {example.clean_prediction}", CLEAN),
            ("", CLEAN),
            (f"predicts {example.adversarial_prediction}", ATTACKED if fooled else CLEAN),
        )
        for axes, picture, (text, colour) in zip(panels[:, column], pictures, captions, strict=True):
            axes.imshow(
                picture.clip(0, 1).squeeze(-1) if picture.shape[-1] == 1 else picture.clip(0, 1), "gray", vmin=0, vmax=1
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(
                textwrap.fill(text, 16), fontsize=9, color=colour, weight="bold" if colour == ATTACKED else "normal"
            )
    for axes, text in zip(panels[:, 0], ("clean", f"perturbation × {scale}", "attacked"), strict=True):
        axes.set_ylabel(text, fontsize=9)
    return figure


def _draw_trace(top: Axes, bottom: Axes, trace: NeuronTrace) -> None:
    steps = range(1, len(trace.clean_membrane) + 1)
    for name, colour, membrane, threshold in (
        ("clean", CLEAN, trace.clean_membrane, trace.clean_threshold),
        ("attacked", ATTACKED, trace.attacked_membrane, trace.attacked_threshold),
    ):
        marker = "o" if name == "clean" else "s"
        top.plot(steps, membrane, color=colour, marker=marker, lw=1.8, label=f"membrane, {name}")
        top.step(steps, threshold, color=colour, where="mid", ls="--", lw=1.2, label=f"threshold, {name}")
    if trace.signature is not None:
        top.plot(steps, trace.signature, color=NEURONS["TA-LIF"], ls=":", lw=2.4, label="signature (clean mean)")
    top.set_title(
        f"{trace.network}\nattack moves the membrane by {trace.deviation:.2f} on average;\n"
        f"spikes: {sum(trace.clean_spikes)} clean, {sum(trace.attacked_spikes)} attacked",
        fontsize=9.5,
    )
    top.set_ylabel("potential")
    for height, spikes, colour in ((1, trace.clean_spikes, CLEAN), (0, trace.attacked_spikes, ATTACKED)):
        fired = [step for step, spike in zip(steps, spikes, strict=True) if spike]
        bottom.vlines(fired, height - 0.35, height + 0.35, color=colour, lw=3)
    bottom.set_yticks([0, 1], ["attacked", "clean"], fontsize=9)
    bottom.set_ylim(-0.6, 1.6)
    bottom.set_xlabel("time step (bars: spikes)")
    for axes in (top, bottom):
        axes.set_xlim(0.6, len(steps) + 0.4)
        axes.set_xticks(list(steps))


def _pixels(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Clean and attacked image [H, W, C]; the first time step if the attack perturbed each on its own."""
    image, attacked = np.asarray(example.image), np.asarray(example.adversarial)
    attacked = attacked[0] if attacked.ndim == 4 else attacked
    return image.transpose(1, 2, 0), attacked.transpose(1, 2, 0)
