"""Neurons sampled for the page of an inspection are those of the network, and no more than a page can hold."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.inspection import samples as sampling
from hosnn.inspection.inspect import inspect
from hosnn.inspection.recording import Offset, record
from hosnn.inspection.samples import sample_neurons
from hosnn.nn.layers import ConstantCoding, MeanReadout, OverTime
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, neurons
from hosnn.results.neuron_samples import LayerSamples
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model
from hosnn.signature import calibrate, homeostatic


def lenet() -> nn.Module:
    torch.manual_seed(0)
    model = LeNet(channels=(3, 4), hidden=12).build().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)
    return homeostatic(model, calibrate(model, [torch.rand(8, 1, 28, 28)]))


def noisy(model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    return (x + 0.1 * rng.sign(x)).clamp(0, 1)


DATA = (torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 10)


def over_time(values: Tensor, position: tuple[int, ...]) -> tuple[float, ...]:
    """One neuron of values [T, *N]."""
    return tuple(float(step[position]) for step in values)


def test_samples_are_the_recorded_runs_of_their_neurons() -> None:
    model, offset = lenet(), Offset(0.2)
    samples = sample_neurons(model, DATA, {"offset": offset}, images=3, neurons=6)
    assert (samples.conditions, samples.steps, samples.of_steps) == (("clean", "offset"), 5, 5)
    x = DATA[0][[image.index for image in samples.images]]
    assert [image.label for image in samples.images] == [int(DATA[1][image.index]) for image in samples.images]
    for place, condition in enumerate((None, offset)):
        logits, records = record(model, x, condition)
        assert [image.predictions[place] for image in samples.images] == logits.argmax(1).tolist()
        for layer in samples.layers:
            run = records[layer.layer]
            for row in range(len(x)):
                for number, position in enumerate(layer.positions):
                    assert layer.current[place][row][number] == over_time(run.currents[:, row], position)
                    assert layer.membrane[place][row][number] == over_time(run.trajectory.membrane[:, row], position)
                    assert layer.threshold[place][row][number] == over_time(run.trajectory.threshold[:, row], position)
                    assert layer.spikes[place][row][number] == over_time(run.trajectory.spikes[:, row], position)
    for layer in samples.layers:
        module = neurons(model)[layer.layer]
        if isinstance(module, TALIF):
            assert layer.signature == tuple(over_time(module.signature, position) for position in layer.positions)
        else:
            assert layer.signature is None


def test_attacks_on_the_samples_are_those_of_the_inspection() -> None:
    """All images sampled and all neurons of the last layer: the error of the page is that of the table."""
    model = lenet()
    samples = sample_neurons(model, DATA, {"noise": noisy}, images=12, seed=3)
    layer = samples.layers[-1]
    assert len(layer.positions) == layer.neurons == 10
    clean, attacked = (torch.tensor(run).double() for run in layer.membrane)
    result = inspect(model, DATA, {"noise": noisy}, seed=3)
    expected = result.conditions[1].layers[-1].error.from_clean
    assert (attacked - clean).square().mean((0, 1)).tolist() == pytest.approx(expected, rel=1e-5)
    assert sum(expected) > 0


def unequal(weights: list[float]) -> nn.Module:
    """A neuron per weight, of which those above 1/τ fire, the largest most often."""
    layer = nn.Linear(1, len(weights), bias=False)
    layer.weight = nn.Parameter(torch.tensor(weights)[:, None])
    return nn.Sequential(ConstantCoding(20, 1), OverTime(nn.Flatten(), layer), LIF(), MeanReadout()).eval()


def sampled(weights: list[float], count: int) -> LayerSamples:
    data = (torch.ones(1, 1, 1, 1), torch.tensor([0]))
    (layer,) = sample_neurons(unequal(weights), data, neurons=count).layers
    return layer


def test_neurons_are_spread_over_the_rates_and_at_most_a_quarter_is_silent() -> None:
    layer = sampled([0.0] * 80 + [0.2 + 0.02 * number for number in range(20)], 8)
    firing = [rate for rate in layer.rates if rate > 0]
    assert len(firing) == 6 and len(layer.rates) == 8
    assert firing == sorted(firing, reverse=True) and firing[0] > 2 * firing[-1]
    assert (layer.neurons, layer.firing) == (100, sum(0.2 + 0.02 * number > 0.2 for number in range(20)))
    assert len(set(layer.positions)) == 8


@pytest.mark.parametrize(
    ("firing", "silent", "shown"), [(2, 30, (2, 6)), (30, 1, (7, 1)), (3, 2, (3, 2)), (0, 9, (0, 8))]
)
def test_what_is_missing_of_one_kind_is_taken_of_the_other(firing: int, silent: int, shown: tuple[int, int]) -> None:
    rates = sampled([2.0] * firing + [0.0] * silent, 8).rates
    assert (sum(rate > 0 for rate in rates), sum(rate == 0 for rate in rates)) == shown


def test_a_large_network_over_many_steps_still_fits_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "STEPS", 3)
    monkeypatch.setattr(sampling, "NUMBERS", 3_000)
    samples = sample_neurons(lenet(), DATA, {"a": Offset(0.1), "b": noisy})
    assert (samples.steps, samples.of_steps) == (3, 5)
    runs = [
        torch.tensor(getattr(layer, name))
        for layer in samples.layers
        for name in ("current", "membrane", "threshold", "spikes")
    ]
    assert 500 < sum(run.numel() for run in runs) <= 3_000
    assert all(len(layer.positions) >= 4 for layer in samples.layers) and len(samples.images) > 1


def test_a_network_without_spiking_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to look at"):
        sample_neurons(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), DATA)
