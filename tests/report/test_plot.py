"""Figures that `hosnn.plot` draws for notebooks."""

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import hosnn
from hosnn.report.plotting import svg
from tests.evaluation.synthetic import rich


def test_a_result_is_drawn_with_a_bar_for_each_record() -> None:
    axes = Figure().subplots()
    assert hosnn.plot.result(rich(), axes) is axes
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([100 * record["accuracy"] for record in rich().to_records()])
    assert "standard" in axes.get_title() and "model-0" in axes.get_title()


def test_without_axes_the_figure_is_one_that_a_notebook_shows() -> None:
    before = pyplot.get_fignums()
    with matplotlib.rc_context({"backend": "agg"}):
        axes = hosnn.plot.result(rich())
    assert axes.figure is pyplot.gcf() and len(pyplot.get_fignums()) == len(before) + 1
    assert svg(pyplot.gcf()).startswith(b"<?xml")
    pyplot.close(pyplot.gcf())
