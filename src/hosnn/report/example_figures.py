"""Pictures of what a network does: one neuron over time, attacked images beside clean ones."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.report.plotting import NEURONS, WIDTH, common_legend, new_figure

CLEAN, ATTACKED = "#222222", "#C2185B"


def close_up(stories: Sequence[NeuronTrace]) -> Figure | None:
    """One neuron over time in each network: membrane, threshold and signature above, spikes below."""
    if not stories:
        return None
    across = min(2, len(stories))
    down = math.ceil(len(stories) / across)
    figure = new_figure(WIDTH, 4.9 * down)
    panels = figure.subplots(2 * down, across, squeeze=False, height_ratios=[4.2, 1] * down)
    for place in range(across * down):
        top, bottom = panels[2 * (place // across), place % across], panels[2 * (place // across) + 1, place % across]
        if place < len(stories):
            _story(top, bottom, stories[place])
        else:
            top.set_axis_off()
            bottom.set_axis_off()
    first = stories[0]
    figure.suptitle(
        f"Neuron {', '.join(map(str, first.neuron))} of layer {first.layer} on a clean and on an attacked image",
        fontsize=11,
    )
    common_legend(figure, panels[::2].flat)
    return figure


def example_grid(examples: Sequence[Example]) -> Figure | None:
    """Columns of images: clean, the perturbation magnified, attacked; what the network says stands below each."""
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
            (f"says {example.clean_prediction}", CLEAN),
            ("", CLEAN),
            (f"says {example.adversarial_prediction}", ATTACKED if fooled else CLEAN),
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


def _story(top: Axes, bottom: Axes, story: NeuronTrace) -> None:
    steps = range(1, len(story.clean_membrane) + 1)
    for name, colour, membrane, threshold in (
        ("clean", CLEAN, story.clean_membrane, story.clean_threshold),
        ("attacked", ATTACKED, story.attacked_membrane, story.attacked_threshold),
    ):
        marker = "o" if name == "clean" else "s"
        top.plot(steps, membrane, color=colour, marker=marker, lw=1.8, label=f"membrane, {name}")
        top.step(steps, threshold, color=colour, where="mid", ls="--", lw=1.2, label=f"threshold, {name}")
    if story.signature is not None:
        top.plot(steps, story.signature, color=NEURONS["TA-LIF"], ls=":", lw=2.4, label="signature (clean mean)")
    top.set_title(
        f"{story.network}\nattack moves the membrane by {story.deviation:.2f} on average;\n"
        f"spikes: {sum(story.clean_spikes)} clean, {sum(story.attacked_spikes)} attacked",
        fontsize=9.5,
    )
    top.set_ylabel("potential")
    for height, spikes, colour in ((1, story.clean_spikes, CLEAN), (0, story.attacked_spikes, ATTACKED)):
        fired = [step for step, spike in zip(steps, spikes, strict=True) if spike]
        bottom.vlines(fired, height - 0.35, height + 0.35, color=colour, lw=3)
    bottom.set_yticks([0, 1], ["attacked", "clean"], fontsize=9)
    bottom.set_ylim(-0.6, 1.6)
    bottom.set_xlabel("time step (bars: spikes)")
    for axes in (top, bottom):
        axes.set_xlim(0.6, len(steps) + 0.4)
        axes.set_xticks(list(steps))


def _pixels(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Clean and attacked image [H, W, C]; of frames the first time step."""
    image, attacked = np.asarray(example.image), np.asarray(example.adversarial)
    attacked = attacked[0] if attacked.ndim == 4 else attacked
    return image.transpose(1, 2, 0), attacked.transpose(1, 2, 0)
