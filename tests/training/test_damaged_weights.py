"""Weights that are numbers but make no sense are refused when they are loaded, not evaluated."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hosnn.errors import CheckpointError, ConfigError
from hosnn.nn.lenet import LeNet
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.training.models import load, save

SMALL = LeNet(channels=(2, 3), hidden=8)


@pytest.mark.parametrize(
    ("tensor", "value", "says"),
    [
        ("body.neurons1.adaptation", -3.0, "k >= 0"),
        ("body.neurons1.adaptation", float("nan"), "k >= 0"),
        ("body.dense3.0.weight", float("nan"), "NaN or infinite"),
        ("body.neurons2.signature", float("inf"), "NaN or infinite"),
    ],
)
def test_impossible_weights_are_refused(tmp_path: Path, tensor: str, value: float, says: str) -> None:
    network = SMALL.build()
    save(homeostatic(network, calibrate(network, [torch.rand(4, 1, 28, 28)])), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor].clone()
    tensors[tensor].view(-1)[0] = value
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=says):
        load(tmp_path / "model")


@pytest.mark.parametrize("path", ["leak", "reset", "threshold"])
def test_the_local_rule_for_k_is_refused_where_it_is_not_defined(path: str) -> None:
    paths = {"leak": False, "reset": False, "threshold": False} | {path: True}
    with pytest.raises(ConfigError, match="local rule for k"):
        GradientRule(leak=paths["leak"], reset=paths["reset"], threshold=paths["threshold"], local_adaptation=True)
