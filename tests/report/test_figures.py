from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.report import evaluation_figures, example_figures, plotting, reproduction_figures
from hosnn.results.evaluation import Panel
from tests.evaluation.synthetic import EPS, comparison, evaluation, rich

TRACE = NeuronTrace(
    network="LIF",
    layer="layer",
    neuron=(1, 2),
    signature=None,
    clean_membrane=(0.5, 1.2),
    attacked_membrane=(0.7, 0.4),
    clean_threshold=(1.0, 1.0),
    attacked_threshold=(1.0, 1.0),
    clean_spikes=(0, 1),
    attacked_spikes=(0, 0),
)
ADAPTING = replace(
    TRACE,
    network="TA-LIF",
    signature=(0.4, 1.0),
    attacked_membrane=(0.7, 0.9),
    clean_threshold=(1.0, 1.1),
    attacked_threshold=(1.1, 1.1),
)
GREY = [[[0.0, 0.5], [1.0, 0.2]]]
EXAMPLE = Example(
    image=GREY,
    adversarial=[[[0.1, 0.4], [0.9, 0.3]]],
    label="shoe",
    clean_prediction="shoe",
    adversarial_prediction="bag",
    network="LIF",
    index=7,
)


def data_lines(figure: Figure) -> list[np.ndarray]:
    return [
        np.asarray(line.get_ydata())
        for axes in figure.axes
        for line in axes.lines
        if len(np.asarray(line.get_ydata())) == len(EPS) + 1
    ]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_curves_have_a_line_of_points_per_network(seeds: tuple[int, ...]) -> None:
    figure = reproduction_figures.curves(comparison(seeds=seeds))
    assert figure is not None
    drawn = data_lines(figure)
    assert len(drawn) == 4
    assert drawn[0][0] == pytest.approx(100 * np.mean([0.92 - seed / 1000 for seed in seeds]))
    assert drawn[3][3] == pytest.approx(76.1)
    assert figure.axes[0].get_title() == "PGD, paper protocol"


def test_a_network_without_a_curve_is_left_out_of_the_curves() -> None:
    result = comparison()
    first, *others = result.cells
    bare = {name: replace(evaluation, panels=()) for name, evaluation in first.evaluations.items()}
    figure = reproduction_figures.curves(replace(result, cells=(replace(first, evaluations=bare), *others)))
    assert figure is not None and len(data_lines(figure)) == 3


def test_no_curve_no_picture() -> None:
    assert reproduction_figures.curves(comparison(samples=1000, seeds=())) is None
    bare = evaluation("smoke", 20, 18, {"FGSM": 3})
    for draw in (evaluation_figures.eps_curve, evaluation_figures.steps_curve, evaluation_figures.search_bars):
        assert draw(bare) is None
    assert evaluation_figures.class_bars(replace(bare, labels=(0,) * 20)) is None
    assert example_figures.neuron_figure(()) is None and example_figures.example_grid(()) is None
    assert reproduction_figures.training_curves(comparison(), {"run-0-0": []}) is None


def test_one_model_has_its_curve() -> None:
    figure = evaluation_figures.eps_curve(evaluation("smoke", 20, 18, {"FGSM": 3}, (15, 10, 5, 2, 1, 0)))
    assert figure is not None
    (drawn,) = data_lines(figure)
    assert drawn == pytest.approx([90, 75, 50, 25, 10, 5, 0])


@pytest.mark.parametrize("sweep", [True, False])
def test_every_value_has_its_bar_and_its_number(sweep: bool) -> None:
    figure = reproduction_figures.bars(comparison(sweep=sweep))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "76.1" in texts and ("72.8" in texts) == sweep and ("not run" in texts) != sweep


def test_the_same_figure_gives_the_same_bytes() -> None:
    once, again = (plotting.svg(reproduction_figures.bars(comparison())) for _ in range(2))
    assert once == again and b"<svg" in once


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_neuron_figure_draws_every_network(count: int) -> None:
    figure = example_figures.neuron_figure((TRACE, ADAPTING, TRACE)[:count])
    assert figure is not None
    assert sum("moves the membrane by 0.50" in axes.get_title() for axes in figure.axes) == (1, 1, 2)[count - 1]
    plotting.svg(figure)


def test_examples_show_what_the_network_predicts() -> None:
    fooled_by_none = replace(EXAMPLE, adversarial_prediction="shoe", label="shoe", clean_prediction="shoe")
    frames = replace(fooled_by_none, adversarial=[[[[0.1, 0.4], [0.9, 0.3]]]] * 5, index=8)
    colour = replace(fooled_by_none, image=GREY * 3, adversarial=GREY * 3, index=9)
    figure = example_figures.example_grid((EXAMPLE, frames))
    assert figure is not None
    assert "predicts bag" in [axes.get_xlabel() for axes in figure.axes]
    assert "perturbation × 5" in [axes.get_ylabel() for axes in figure.axes]
    unmoved = example_figures.example_grid((colour,))
    assert unmoved is not None
    plotting.svg(unmoved)


def test_training_curves_know_the_cells_runs_and_others() -> None:
    log = [{"step": 10 * at, "epoch": at, "loss": 1 / at, "validation_accuracy": 0.5, "lr": 1e-3} for at in (1, 2, 3)]
    figure = reproduction_figures.training_curves(comparison(), {"run-0-0": log, "start": log})
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["LIF, clean-trained", "start"]


def ticks(figure: Figure, axis: str) -> list[str]:
    (axes,) = figure.axes
    return [label.get_text() for label in (axes.get_xticklabels() if axis == "x" else axes.get_yticklabels())]


def lengths(figure: Figure) -> list[float]:
    """Of the horizontal bars, without those that only stand for the legend."""
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    return [bar.get_width() for bar in bars if bar.get_width() > 0]


def test_eps_reads_in_grey_levels_where_it_is_whole_levels_and_else_as_it_is() -> None:
    figure = evaluation_figures.eps_curve(rich())
    assert figure is not None
    assert ticks(figure, "x") == ["0", "2", "4", "8", "16", "32", "64", "255"]
    assert figure.axes[0].get_xlabel() == "eps (linf), /255"
    rows = tuple(replace(row, eps=eps) for row, eps in zip(rich().curve, (0.25, 0.5, 2.0), strict=False))
    other = evaluation_figures.eps_curve(replace(rich(), threat="l2:1/2", panels=(Panel("eps", rows),)))
    assert other is not None
    assert ticks(other, "x") == ["0", "1/4", "1/2", "2"] and other.axes[0].get_xlabel() == "eps (l2)"


def test_steps_have_a_line_per_attack_at_the_accuracies_of_the_panel() -> None:
    figure = evaluation_figures.steps_curve(rich())
    assert figure is not None
    lines = {str(line.get_label()): line for line in figure.axes[0].lines if len(np.asarray(line.get_ydata())) == 4}
    assert np.asarray(lines["PGD"].get_ydata()) == pytest.approx([70, 66, 62, 60])
    assert np.asarray(lines["APGD-CE"].get_ydata()) == pytest.approx([66, 60, 57, 55])
    assert ticks(figure, "x") == ["10", "20", "50", "100"]


def test_the_search_shows_the_strongest_first_and_marks_what_the_attacks_use() -> None:
    figure = evaluation_figures.search_bars(rich())
    assert figure is not None
    assert ticks(figure, "y") == ["rectangle 0.5", "full BPTT", "TSSL-BP", "straight-through"]
    assert lengths(figure) == pytest.approx([52, 57, 71, 83])
    assert [bool(bar.get_hatch()) for bar in figure.axes[0].patches[:4]] == [False, False, True, True]


def test_classes_are_drawn_from_robust_to_not() -> None:
    base = evaluation("smoke", 40, 40, {"FGSM": 40})
    wrong = {3: 4, 1: 2}  # class 3 loses all its four images, class 1 two
    lost = [sum(base.labels[: at + 1].count(k) for k in [base.labels[at]]) for at in range(40)]
    guesses = tuple(label + 1 if lost[at] <= wrong.get(label, 0) else label for at, label in enumerate(base.labels))
    figure = evaluation_figures.class_bars(
        replace(base, rows=(replace(base.rows[0], predictions=guesses),)), ("a", "b")
    )
    assert figure is not None
    assert ticks(figure, "y")[-2:] == ["b", "class 3"] and ticks(figure, "y")[0] == "a"
    assert lengths(figure)[-3:] == pytest.approx([100, 50, 100])  # clean and worst case of b, clean of class 3
    plotting.svg(figure)


def test_very_many_classes_are_cut_to_the_extremes() -> None:
    base = evaluation("smoke", 100, 100, {"FGSM": 60})
    many = replace(base, labels=tuple(range(100)), clean=tuple(range(100)))
    figure = evaluation_figures.class_bars(many)
    assert figure is not None and len(ticks(figure, "y")) == 20
