import numpy as np
import pytest
from matplotlib.figure import Figure

from hosnn.evaluation import figures, pictures
from hosnn.evaluation.close_up import Example, NeuronStory
from tests.evaluation.synthetic import EPS, comparison, evaluation

STORY = NeuronStory("LIF", "layer", (1, 2), None, (0.5, 1.2), (0.7, 0.4), (1.0, 1.0), (1.0, 1.0), (0, 1), (0, 0))
ADAPTING = NeuronStory(
    "TA-LIF", "layer", (1, 2), (0.4, 1.0), (0.5, 1.2), (0.7, 0.9), (1.0, 1.1), (1.1, 1.1), (0, 1), (0, 0)
)
GREY = [[[0.0, 0.5], [1.0, 0.2]]]
EXAMPLE = Example(GREY, [[[0.1, 0.4], [0.9, 0.3]]], "shoe", "shoe", "bag", "LIF", 7)


def data_lines(figure: Figure) -> list[np.ndarray]:
    return [
        np.asarray(line.get_ydata())
        for axes in figure.axes
        for line in axes.lines
        if len(np.asarray(line.get_ydata())) == len(EPS) + 1
    ]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_curves_have_a_line_of_points_per_network(seeds: tuple[int, ...]) -> None:
    figure = figures.curves(comparison(seeds=seeds))
    assert figure is not None
    drawn = data_lines(figure)
    assert len(drawn) == 4
    assert drawn[0][0] == pytest.approx(100 * np.mean([0.92 - seed / 1000 for seed in seeds]))
    assert drawn[3][3] == pytest.approx(76.1)


def test_no_curve_no_picture() -> None:
    assert figures.curves(comparison(samples=1000, seeds=())) is None
    assert figures.evaluation_curve(evaluation("smoke", 20, 18, {"FGSM": 3})) is None
    assert pictures.close_up(()) is None and pictures.example_grid(()) is None
    assert figures.training_curves(comparison(), {"run-0-0": []}) is None


def test_one_model_has_its_curve() -> None:
    figure = figures.evaluation_curve(evaluation("smoke", 20, 18, {"FGSM": 3}, (15, 10, 5, 2, 1, 0)))
    assert figure is not None
    (drawn,) = data_lines(figure)
    assert drawn == pytest.approx([90, 75, 50, 25, 10, 5, 0])


@pytest.mark.parametrize("sweep", [True, False])
def test_every_value_has_its_bar_and_its_number(sweep: bool) -> None:
    figure = figures.bars(comparison(sweep=sweep))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "76.1" in texts and ("72.8" in texts) == sweep and ("not run" in texts) != sweep


def test_the_same_figure_gives_the_same_bytes() -> None:
    once, again = (figures.svg(figures.bars(comparison())) for _ in range(2))
    assert once == again and b"<svg" in once


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_close_up_draws_every_network(count: int) -> None:
    figure = pictures.close_up((STORY, ADAPTING, STORY)[:count])
    assert figure is not None
    assert sum("moves the membrane by 0.50" in axes.get_title() for axes in figure.axes) == (1, 1, 2)[count - 1]
    figures.svg(figure)


def test_examples_show_what_the_network_says() -> None:
    frames = Example(GREY, [[[[0.1, 0.4], [0.9, 0.3]]]] * 5, "shoe", "shoe", "shoe", "LIF", 8)
    colour = Example(GREY * 3, GREY * 3, "shoe", "shoe", "shoe", "LIF", 9)
    figure = pictures.example_grid((EXAMPLE, frames))
    assert figure is not None
    assert "says bag" in [axes.get_xlabel() for axes in figure.axes]
    assert "perturbation × 5" in [axes.get_ylabel() for axes in figure.axes]
    unmoved = pictures.example_grid((colour,))
    assert unmoved is not None
    figures.svg(unmoved)


def test_training_curves_know_the_cells_runs_and_others() -> None:
    log = [{"step": 10 * at, "epoch": at, "loss": 1 / at, "validation_accuracy": 0.5, "lr": 1e-3} for at in (1, 2, 3)]
    figure = figures.training_curves(comparison(), {"run-0-0": log, "start": log})
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["LIF, clean-trained", "start"]
