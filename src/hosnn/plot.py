"""Figures for notebooks and scripts, of matplotlib: `hosnn.plot.result(result)`, `hosnn.plot.recording(events)`,
`hosnn.plot.frames(x[0])`."""

from matplotlib.axes import Axes

from hosnn.report.evaluation_figures import attack_bars, bars_height
from hosnn.report.plotting import WIDTH, without_formulas
from hosnn.report.recording_figure import events_figure as recording
from hosnn.report.recording_figure import frames_figure as frames
from hosnn.results.evaluation import Evaluation

__all__ = ["frames", "recording", "result"]


def result(evaluation: Evaluation, axes: Axes | None = None) -> Axes:
    """Draw the accuracy without attack, after each attack and in the worst case, with 95 % intervals.

    axes     where to draw; None: on a new figure of pyplot, which a notebook shows
    returns  the axes, to change or save: `hosnn.plot.result(evaluation).figure.savefig("result.pdf")`
    """
    if axes is None:
        from matplotlib import pyplot  # not at the top: it chooses a display, which the other figures do not need

        _, axes = pyplot.subplots(figsize=(WIDTH, 1.2 + bars_height(len(evaluation.rows) + 2)), layout="constrained")
    attack_bars(evaluation, axes)
    without_formulas(axes)
    return axes
