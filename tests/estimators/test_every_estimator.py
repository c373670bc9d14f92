"""Every estimator there is: the forward keeps its bits, a gradient arrives, samples are independent."""

import copy
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch import Tensor, nn

from hosnn.estimators import ALTERNATIVES, CUTS, ENSEMBLE, WIDTHS, AdaptiveSharpness, Estimator, Through, title
from hosnn.estimators.rules import differentiated
from hosnn.nn.neurons import Emit, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.model import Model, input_gradient
from hosnn.robustness.pgd import PGD, at_clean, fgsm
from hosnn.robustness.threats import Linf, Threat
from hosnn.spiking.gradient_rule import GradientRule, Rule, bptt
from hosnn.spiking.kernels import eager
from hosnn.spiking.state import Reset
from tests.estimators.networks import adaptive, images, labels, plain
from tests.robustness.models import linear

ESTIMATORS = (*WIDTHS, *CUTS, *ENSEMBLE, *ALTERNATIVES)
EVERY = pytest.mark.parametrize("estimator", ESTIMATORS, ids=title)
NETWORKS = pytest.mark.parametrize("build", [plain, adaptive])
EMIT = pytest.mark.parametrize("emit", list(Emit))
THREAT = Threat(Linf(0.1))
Build = Callable[..., nn.Sequential]


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


def gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(model, x, y, cross_entropy).gradient


@EVERY
@NETWORKS
@EMIT
@pytest.mark.parametrize("reset", list(Reset))
def test_the_forward_keeps_its_bits(build: Build, emit: Emit, reset: Reset, estimator: Estimator) -> None:
    network, x = build(reset, emit), images()
    with torch.no_grad():
        expected = network(x)
    twin = differentiated(network, estimator, len(x))
    assert expected.abs().max() > 0.01, "a silent network proves nothing"
    assert torch.equal(twin(x), expected) and torch.equal(twin(x.clone().requires_grad_()), expected)
    with torch.no_grad():
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("rule", [rule for rule in ESTIMATORS if not isinstance(rule, AdaptiveSharpness)], ids=title)
@NETWORKS
@pytest.mark.parametrize("reset", list(Reset))
def test_every_quantity_of_a_layer_keeps_its_bits(build: Build, reset: Reset, rule: Rule) -> None:
    layer = copy.deepcopy(next(iter(neurons(build(reset)).values())))
    currents = torch.randn(5, 3, 4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = layer.trajectory(currents)
    layer.rule = rule
    got = layer.trajectory(currents.requires_grad_())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, expected, strict=True))
    threshold = layer.threshold_over(5)
    assert torch.equal(eager.spikes(currents, layer.dynamics, rule, threshold), expected.spikes)
    assert torch.equal(eager.traces(currents, layer.dynamics, rule, threshold), expected.trace)


@EVERY
@NETWORKS
@EMIT
def test_a_gradient_arrives_and_attacks_move(build: Build, emit: Emit, estimator: Estimator) -> None:
    network, x, y = build(emit=emit), images(), labels()
    found = gradient(differentiated(network, estimator, len(x)), x, y)
    assert found.isfinite().all() and (found != 0).any()
    for attack in (fgsm(THREAT), PGD(THREAT, steps=3, start=at_clean)):
        moved = Through(estimator, attack)(network, x, y, rng())
        assert THREAT.allows(moved, x).all() and not torch.equal(moved, x)


@EVERY
@NETWORKS
def test_samples_do_not_change_each_others_gradient(build: Build, estimator: Estimator) -> None:
    network, x, y = build(), images(), labels()
    whole = gradient(differentiated(network, estimator, 6), x, y)
    parts = [gradient(differentiated(network, estimator, 2), x[at], y[at]) for at in torch.arange(6).view(3, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-12 * float(whole.abs().max()))


@EVERY
@NETWORKS
def test_an_attack_through_an_estimator_treats_each_sample_alone(build: Build, estimator: Estimator) -> None:
    network, x, y = build(), images(), labels()
    attack = Through(estimator, PGD(THREAT, steps=3, step_size=0.4))
    whole = attack(network, x, y, rng())
    for chosen in (torch.tensor([4, 1]), torch.tensor([0])):
        alone = attack(network, x[chosen], y[chosen], rng().rows(chosen))
        torch.testing.assert_close(alone, whole[chosen], rtol=0, atol=1e-9)
    assert torch.equal(attack(network, x, y, rng()), whole), "state is fresh in every call"


@EVERY
def test_a_model_without_spiking_layers_is_attacked_as_it_is(estimator: Estimator) -> None:
    x, y = images(), labels()
    assert torch.equal(Through(estimator, fgsm(THREAT))(linear(), x, y, rng()), fgsm(THREAT)(linear(), x, y, rng()))


@EVERY
def test_an_estimator_is_a_frozen_value_with_a_stable_repr(estimator: Estimator) -> None:
    twin = type(estimator)(**{field.name: getattr(estimator, field.name) for field in fields(estimator)})
    assert twin == estimator and hash(twin) == hash(estimator) and repr(twin) == repr(estimator)
    assert " at 0x" not in repr(estimator) and "lambda" not in repr(estimator)
    with pytest.raises(FrozenInstanceError):
        estimator.anything = 1  # type: ignore[union-attr]


def test_cuts_of_the_threshold_are_bptt_on_a_plain_network_and_not_on_an_adaptive_one() -> None:
    x, y = images(), labels()
    cut = GradientRule(threshold=False)
    for build, same in ((plain, True), (adaptive, False)):
        found = [gradient(differentiated(build(), rule, 6), x, y) for rule in (cut, bptt())]
        assert torch.equal(found[0], found[1]) is same
