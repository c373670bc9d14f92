"""A recording of an event camera as a figure: its frames, and events over time."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from hosnn.data.events import Events
from hosnn.errors import ShapeError
from hosnn.report.plotting import INK, NEURONS, WIDTH, new_figure

MOST = 10
"""Frames that are shown; of more, evenly spaced ones."""


def frames_figure(frames: Tensor, title: str = "") -> Figure:
    """Frames [T, 2, H, W] in [0, 1] side by side: brighter events blue, darker orange, none white.

    Raises ShapeError for another shape.
    """
    if frames.dim() != 4 or frames.shape[1] != 2:
        raise ShapeError(f"frames_figure got {list(frames.shape)}; expected frames [T, 2, H, W] of one recording")
    shown = np.unique(np.linspace(0, len(frames) - 1, MOST).round().astype(int))
    figure = new_figure(WIDTH, 1.7 * -(-len(shown) // 5) + 0.3)
    panels = figure.subplots(-(-len(shown) // 5), 5, squeeze=False).ravel()
    colours = [tuple(int(NEURONS[name][at : at + 2], 16) / 255 for at in (1, 3, 5)) for name in ("LIF", "TA-LIF")]
    for axes in panels:
        axes.set_axis_off()
    for axes, step in zip(panels, shown, strict=False):
        darker, brighter = frames[step].float().cpu().numpy().clip(0, 1)
        picture = np.ones((*darker.shape, 3))
        for amount, colour in ((darker, colours[0]), (brighter, colours[1])):
            picture -= amount[:, :, None] * (1 - np.asarray(colour))
        axes.imshow(picture.clip(0, 1), interpolation="nearest")
        axes.set_title(f"step {step + 1}", fontsize=9, color=INK)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def events_figure(events: Events, title: str = "") -> Figure:
    """Every event of a recording by time and row, and how many there are per millisecond."""
    figure = new_figure(WIDTH, 4.2)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    milliseconds = (events.time - events.time[0]) / 1000
    for polarity, name, colour in ((1, "brighter", NEURONS["TA-LIF"]), (0, "darker", NEURONS["LIF"])):
        chosen = events.polarity == polarity
        above.scatter(milliseconds[chosen], events.y[chosen], s=1.5, color=colour, label=name, linewidths=0)
    above.invert_yaxis()
    above.set_ylabel("row")
    above.legend(loc="upper right", markerscale=4, fontsize=9)
    below.hist(milliseconds, bins=max(1, int(milliseconds[-1]) + 1), color=INK)
    below.set_ylabel("events per ms", fontsize=9)
    below.set_xlabel("milliseconds")
    above.set_title(title or f"{len(events):,} events", fontsize=11)
    return figure
