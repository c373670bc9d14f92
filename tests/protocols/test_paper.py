"""The `paper` protocol beyond its default: colour images with one scalar std, networks of other lengths."""

from dataclasses import replace

import pytest
import torch

from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.lenet import LeNet
from hosnn.protocols.paper import PaperChoices, paper

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
COLOUR = LeNet(channels=(2, 3), hidden=8, image=(3, 28, 28), mean=MEAN, std=STD)


def test_one_scalar_std_works_on_colour_with_its_whole_curve() -> None:
    choices = PaperChoices(scalar_std=True, mean=MEAN, std=STD)
    plan = paper(choices=choices).resized(4, 4)
    result = evaluate(COLOUR.build(), (torch.rand(4, 3, 28, 28), torch.arange(4)), plan)
    assert len(result.curve) == 6
    with pytest.raises(ConfigError, match="unclamped"):
        paper(choices=replace(choices, unclamped=False))


@pytest.mark.parametrize("steps", [3, 7])
def test_networks_of_any_length_can_be_attacked(steps: int) -> None:
    plan = paper().resized(4, 0)
    result = evaluate(replace(COLOUR, steps=steps).build(), (torch.rand(4, 3, 28, 28), torch.arange(4)), plan)
    assert len(result.rows) == 4
