"""A loss that sees the membrane of the output neurons: its value, its scale, its gradient where logits have none."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from hosnn.estimators import WithMembraneMargin
from hosnn.estimators.membrane_margin import logit_scale, output_neurons
from hosnn.nn.body import Body
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork
from hosnn.nn.neurons import LIF, Emit
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import Loss, margin
from hosnn.robustness.model import InputGradient, Model, input_gradient
from hosnn.spiking.dynamics import lif_step, resting
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import Rectangle

X, Y = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def network(spiking: bool = True) -> SpikingNetwork:
    torch.manual_seed(0)
    layers: list[nn.Module] = [OverTime(nn.Flatten(), nn.Linear(16, 3, bias=False))]
    if spiking:  # a surrogate that is zero a little away from the threshold
        layers.append(LIF(Dynamics(), bptt(Rectangle(1e-6)), fixed_threshold=True))
    return SpikingNetwork(Normalise((0.0,), (1.0,)), ConstantCoding(5), Body(*layers), MeanReadout()).eval()


@dataclass(frozen=True)
class OneGradient:
    """An attack that takes one gradient, keeps it and changes nothing."""

    loss: Loss = margin
    seen: list[InputGradient] = field(default_factory=list)

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        self.seen.append(input_gradient(model, x, y, self.loss))
        return x


def evaluated(model: Model, weight: float = 1.0) -> InputGradient:
    attack = OneGradient()
    WithMembraneMargin(attack, weight)(model, X, Y, SampleRandom(0, torch.arange(len(Y))))
    return attack.seen[0]


def test_the_loss_is_the_margin_of_logits_and_of_the_membrane_without_spikes() -> None:
    model = network()
    with torch.no_grad():
        currents = model.body[0](model.coding(model.normalise(X)))  # type: ignore[index]
        membrane, over_time = torch.zeros_like(currents[0]), []
        for current in currents:
            membrane = Dynamics().membrane_decay * membrane + current
            over_time.append(membrane)
        scale = logit_scale(Dynamics(), Emit.TRACE, 5)
        expected = margin(model(X), Y) + 0.5 * scale * margin(torch.stack(over_time).mean(0), Y)
    torch.testing.assert_close(evaluated(model, 0.5).loss, expected)
    assert torch.equal(evaluated(model).scores, model(X)), "the logits alone decide"


def test_there_is_a_gradient_where_logits_have_none() -> None:
    assert not evaluated(network(), 0.0).gradient.any()
    assert evaluated(network()).gradient.flatten(1).any(1).all()


@pytest.mark.parametrize("emit", [Emit.SPIKES, Emit.TRACE])
def test_the_scale_is_that_of_neurons_that_lose_nothing(emit: Emit) -> None:
    """Nearly without leak and with soft reset, a neuron spikes once for every θ of its input."""
    dynamics = Dynamics(tau_membrane=1e9, tau_synapse=3.0, threshold=2.0, reset=Reset.SOFT)
    steps, current = 4000, torch.tensor([0.013], dtype=torch.float64)
    state, outputs = resting(current, dynamics), []
    for _ in range(steps):
        step, state = lif_step(current, state, dynamics, bptt())
        outputs.append(step.spikes if emit is Emit.SPIKES else step.trace)
    mean_membrane = float(current) * (steps + 1) / 2
    expected = float(torch.stack(outputs).mean()) / mean_membrane
    # The formula is of the spikes of each step, which without leak are I/θ times the elapsed time in the membrane.
    assert logit_scale(dynamics, emit, steps) == pytest.approx(expected, rel=0.05)


def test_other_networks_are_attacked_by_the_attack_s_own_loss() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3]

    models: list[Model] = [network(spiking=False), Own(), lambda x: x.flatten(1)[:, :3]]
    for model in models:
        assert output_neurons(model) is None
        torch.testing.assert_close(evaluated(model).loss, margin(model(X), Y))


def test_no_hook_stays_behind() -> None:
    model = network()
    evaluated(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
