"""Figures for notebooks and scripts, of matplotlib: `hosnn.plot.recording(events)`, `hosnn.plot.frames(x[0])`."""

from hosnn.report.recording_figure import events_figure as recording
from hosnn.report.recording_figure import frames_figure as frames

__all__ = ["frames", "recording"]
