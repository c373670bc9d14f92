"""Weights trained through an estimator: the same loss, the estimator's gradient, one set of running statistics."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.estimators import BPTR, AdaptiveSharpness, Estimator, with_rule
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import SpikingNetwork
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.signature import calibrate, homeostatic
from hosnn.signature.ablations import static_thresholds
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.surrogate import PiecewiseLinear
from hosnn.training.estimated_objective import WeightsThrough
from hosnn.training.membrane_objectives import NearThreshold, PerturbedMembranes
from hosnn.training.objectives import Adversarial, CrossEntropy, VanRossum
from hosnn.training.paired_objectives import TRADES, SparseGradients

ATTACK = PGD(Threat(Linf(0.05)), steps=1, keep_best=False)
OBJECTIVE = Adversarial(ATTACK, CrossEntropy(), "eval")
NETWORK = ConvNet("4C3-P2-8-4", (1, 28, 28), (0.5,), (0.25,), 3, dropout=0.0, rule=bptt(), spiking_output=False)


def built() -> SpikingNetwork:
    torch.manual_seed(0)
    return NETWORK.build().train()


def gradients(network: SpikingNetwork, losses: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(losses.mean(), list(network.parameters())))


@pytest.mark.parametrize("objective", [OBJECTIVE, TRADES(ATTACK)], ids=lambda objective: type(objective).__name__)
def test_a_rule_gives_the_gradient_of_a_network_that_has_it(objective: TRADES | Adversarial, data: Dataset) -> None:
    x, y = data.train.batch(torch.arange(8))
    moved, rule = (x + 0.05).clamp(max=1), bptt(PiecewiseLinear(2.0))
    network, other = built(), built()
    losses = WeightsThrough(objective, rule).losses(network, x, moved, y)
    expected = objective.losses(with_rule(other, rule), x, moved, y)
    assert torch.equal(losses, expected) and torch.equal(losses, objective.losses(built(), x, moved, y))
    found, wanted, own = gradients(network, losses), gradients(other, expected), built()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    plain = gradients(own, objective.losses(own, x, moved, y))
    assert not all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    statistics = [(a, b) for a, b in zip(network.buffers(), own.buffers(), strict=True)]
    assert statistics and all(torch.equal(a, b) for a, b in statistics)


def test_adaptive_sharpness_reaches_all_weights(data: Dataset) -> None:
    x, y = data.train.batch(torch.arange(8))
    network = built()
    through = WeightsThrough(OBJECTIVE, AdaptiveSharpness())
    losses = through.losses(network, x, x, y)
    assert torch.equal(losses, OBJECTIVE.losses(built(), x, x, y))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients(network, losses))
    assert through.title == "FGSM 1/20, weights through ASSG"


def test_objectives_and_networks_that_it_cannot_reach_are_refused(data: Dataset) -> None:
    inside = (kind(ATTACK, CrossEntropy(), "eval") for kind in (PerturbedMembranes, NearThreshold))
    for objective in (*inside, Adversarial(ATTACK, VanRossum(), "eval")):
        with pytest.raises(ConfigError, match="objective of logits with CrossEntropy"):
            WeightsThrough(objective, bptt())
    twin = replace(NETWORK, twin=Twin.RELU).build()
    x, y = data.train.batch(torch.arange(4))
    with pytest.raises(ConfigError, match="without spiking layers"):
        WeightsThrough(OBJECTIVE, bptt()).losses(twin, x, x, y)


def test_a_penalty_that_looks_into_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="SparseGradients"):
        WeightsThrough(SparseGradients(ATTACK, CrossEntropy(), "eval"), AdaptiveSharpness())


def test_estimators_that_would_stop_k_from_learning_are_refused(data: Dataset) -> None:
    x, y = data.train.batch(torch.arange(4))
    network = built().eval()
    adaptive = homeostatic(network, calibrate(network, [x]))
    static = static_thresholds(network, x)
    unfit: tuple[Estimator, ...] = (BPTR(), GradientRule(threshold=False))
    fit: tuple[Estimator, ...] = (AdaptiveSharpness(), bptt(), tssl_bp())
    for model, rule in product((adaptive, static), unfit):
        with pytest.raises(ConfigError, match="no gradient to k or to learned thresholds, for a network that has them"):
            WeightsThrough(OBJECTIVE, rule).losses(model, x, x, y)
    for model, rule in product((adaptive, static), fit):
        losses = WeightsThrough(OBJECTIVE, rule).losses(model, x, x, y)
        assert all(gradient is not None for gradient in torch.autograd.grad(losses.mean(), list(model.parameters())))
