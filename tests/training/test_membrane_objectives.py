"""Penalties on membranes, against their formulas on a network whose currents are known."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from hosnn.errors import ConfigError
from hosnn.estimators import HART, with_rule
from hosnn.nn.body import Body
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork
from hosnn.nn.neurons import LIF, neurons
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import PotentialDependent, Rectangle, Sigmoid, StraightThrough
from hosnn.training.membrane_objectives import NearThreshold, PerturbedMembranes
from hosnn.training.objectives import CrossEntropy

ATTACK = PGD(Threat(Linf(0.05)), steps=1)
STEPS = 3


def network(tau_membrane: float = 4.0) -> tuple[SpikingNetwork, nn.Linear]:
    """Pixels straight into a dense layer, whose 5 neurons feed 3 logits."""
    torch.manual_seed(0)
    dense = nn.Linear(4, 5, bias=False)
    body = Body(
        nn.Flatten(2), OverTime(dense), LIF(Dynamics(tau_membrane, 1.0), bptt()), OverTime(nn.Linear(5, 3, bias=False))
    )
    model = SpikingNetwork(Normalise((0.0,), (1.0,)), ConstantCoding(STEPS, 1.0), body, MeanReadout())
    return model, dense


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("tau", [4.0, float("inf")])
def test_it_adds_the_mean_of_what_the_perturbation_leaves_in_the_membrane(power: Any, tau: float) -> None:
    model, dense = network(tau)
    rng = torch.Generator().manual_seed(1)
    x, y = torch.rand(6, 1, 2, 2, generator=rng), torch.arange(6) % 3
    moved = (x + 0.1 * torch.rand(x.shape, generator=rng)).clamp(0, 1)
    objective = PerturbedMembranes(ATTACK, CrossEntropy(), "eval", weight=0.7, power=power)
    found = objective.losses(model, x, moved, y)
    with torch.no_grad():
        current = dense((moved - x).flatten(1))
        decay = 1 - 1 / tau
        sums = [sum(decay**j for j in range(t)) * current for t in range(1, STEPS + 1)]
        penalty = torch.stack([total.abs() ** power for total in sums]).mean((0, 2))
        both = (CrossEntropy()(model, x, y) + CrossEntropy()(model, moved, y)) / 2
    torch.testing.assert_close(found.detach(), both + 0.7 * penalty)


def test_only_the_perturbed_image_is_moved_towards_the_clean_one() -> None:
    """With x' = x the difference is zero, and so is the gradient of its square."""
    model, dense = network()
    x, y = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    losses = {
        weight: PerturbedMembranes(ATTACK, CrossEntropy(), "eval", weight, 2).losses(model, x, x, y)
        for weight in (1.0, 1e6)
    }
    gradients = [torch.autograd.grad(loss.sum(), dense.weight)[0] for loss in losses.values()]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("tau", [4.0, float("inf")])
def test_it_adds_the_mean_derivative_of_the_surrogate_at_the_membranes(tau: float) -> None:
    model, dense = network(tau)
    x, y = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    found = NearThreshold(ATTACK, CrossEntropy(), "eval", weight=0.7).losses(model, torch.rand_like(x), x, y)
    (layer,) = neurons(model).values()
    with torch.no_grad():
        membrane = layer.membranes(dense(x.flatten(1)).expand(STEPS, 6, 5))
    density = Sigmoid(0.2).derivative(membrane - layer.dynamics.threshold).mean((0, 2))
    torch.testing.assert_close(found.detach(), CrossEntropy()(model, x, y) + 0.7 * density)


def test_training_on_it_moves_membranes_away_from_thresholds() -> None:
    model, _ = network()
    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    objective = NearThreshold(ATTACK, CrossEntropy(), "eval", weight=10.0)
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(30):
        loss = (objective.losses(model, x, x, y) - CrossEntropy()(model, x, y)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_gradient_rule_without_a_surrogate_is_refused() -> None:
    model = with_rule(network()[0], HART())
    x = torch.rand(2, 1, 2, 2)
    with pytest.raises(ConfigError, match="has no surrogate"):
        NearThreshold(ATTACK, CrossEntropy(), "eval").losses(model, x, x, torch.tensor([0, 1]))


def test_networks_without_spiking_layers_and_wrong_settings_are_refused() -> None:
    objective = PerturbedMembranes(ATTACK, CrossEntropy(), "eval")
    plain: Any = nn.Flatten()
    with pytest.raises(ConfigError, match="without spiking layers"):
        objective.losses(plain, torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), torch.tensor([0]))
    wrong: Any = 3
    with pytest.raises(ConfigError, match="power = 3"):
        PerturbedMembranes(ATTACK, CrossEntropy(), "eval", power=wrong)
    with pytest.raises(ConfigError, match="weight = 0"):
        PerturbedMembranes(ATTACK, CrossEntropy(), "eval", weight=0)


@pytest.mark.parametrize("kind", [PerturbedMembranes, NearThreshold])
def test_penalties_have_no_unit(kind: Any) -> None:
    """Weights and threshold four times as large: the same spikes, and the same penalty."""
    objective = kind(ATTACK, CrossEntropy(), "eval", 100.0)
    x, y = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    expected = objective.losses(network()[0], x, 0.9 * x, y)
    model, dense = network()
    with torch.no_grad():
        dense.weight.mul_(4)
    (layer,) = neurons(model).values()
    layer.dynamics = replace(layer.dynamics, threshold=4.0)
    torch.testing.assert_close(objective.losses(model, x, 0.9 * x, y), expected)


@pytest.mark.parametrize("surrogate", [Rectangle(), StraightThrough()], ids=repr)
def test_a_surrogate_without_a_slope_is_refused(surrogate: Any) -> None:
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(ConfigError, match="the penalty has no gradient; train through another"):
        NearThreshold(ATTACK, CrossEntropy(), "eval").losses(with_rule(network()[0], bptt(surrogate)), x, x, y)


def test_the_spread_of_potentials_is_that_of_each_time_step() -> None:
    model = with_rule(network()[0], bptt(PotentialDependent()))
    x, y = torch.rand(4, 1, 2, 2), torch.arange(4) % 3
    found = NearThreshold(ATTACK, CrossEntropy(), "eval", 1.0).losses(model, x, x, y) - CrossEntropy()(model, x, y)
    (layer,) = neurons(model).values()
    body: Any = model.body
    membrane = layer.membranes(body[1](body[0](model.coding(x))))
    expected = [PotentialDependent().derivative(u - 1).mean(1) for u in membrane]
    torch.testing.assert_close(found, torch.stack(expected).mean(0))
