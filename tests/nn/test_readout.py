"""A readout that learns how much each time step counts."""

from pathlib import Path

import pytest
import torch

import hosnn
from hosnn.errors import ShapeError
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import MeanReadout, SpikingNetwork, WeightedReadout
from hosnn.spiking.gradient_rule import bptt

BLUEPRINT = ConvNet(
    "4C3-P2-8-3", (1, 12, 12), (0.5,), (0.25,), steps=4, rule=bptt(), spiking_output=False, learned_readout=True
)


def network() -> SpikingNetwork:
    torch.manual_seed(0)
    return BLUEPRINT.build().eval()


def test_it_is_the_mean_at_first_and_a_weighted_sum_after_training() -> None:
    outputs = torch.randn(4, 5, 3)
    readout = WeightedReadout(4)
    torch.testing.assert_close(readout(outputs), MeanReadout()(outputs))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    readout.weights.data.copy_(weights)
    torch.testing.assert_close(readout(outputs), (weights[:, None, None] * outputs).sum(0))
    with pytest.raises(ShapeError, match="3 time steps, expected its 4"):
        readout(outputs[:3])


def test_each_step_has_a_gradient_of_its_own() -> None:
    model = network()
    loss = torch.nn.functional.cross_entropy(model(torch.rand(6, 1, 12, 12)), torch.arange(6) % 3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert isinstance(model.readout, WeightedReadout)
    gradient = model.readout.weights.grad
    assert gradient is not None and len(set(gradient.tolist())) == 4


def test_it_is_saved_loaded_and_streamed(tmp_path: Path) -> None:
    model = network()
    assert isinstance(model.readout, WeightedReadout)
    model.readout.weights.data.copy_(torch.tensor([0.1, 0.5, 0.2, 0.3]))
    x = torch.rand(2, 1, 12, 12)
    hosnn.save(model, tmp_path / "model")
    loaded = hosnn.load(tmp_path / "model")
    assert torch.equal(loaded(x), model(x))
    stream = hosnn.stream(loaded)
    for _ in range(4):
        logits = stream.step(x)
    torch.testing.assert_close(logits, model(x), atol=1e-5, rtol=0)
    with pytest.raises(ShapeError, match="more than its 4 time steps"):
        stream.step(x)


def test_a_twin_without_time_reads_out_as_before() -> None:
    twin = ConvNet("4C3-P2-8-3", (1, 12, 12), (0.5,), (0.25,), learned_readout=True, twin=Twin.RELU).build()
    assert twin(torch.rand(2, 1, 12, 12)).shape == (2, 3)
