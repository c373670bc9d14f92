"""Every estimator there is: the forward keeps its bits, a gradient arrives, samples are independent."""

import copy
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import NoEffectWarning
from hosnn.estimators import (
    ALTERNATIVES,
    CUTS,
    ENSEMBLE,
    SIGMOIDS,
    AdaptiveSharpness,
    Estimator,
    Through,
    estimator_name,
)
from hosnn.estimators.rules import differentiated
from hosnn.nn.neurons import Emit, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.model import Model, input_gradient
from hosnn.robustness.pgd import PGD, at_clean, fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import GradientRule, Rule, bptt
from hosnn.spiking.kernels import eager
from hosnn.spiking.state import Reset
from tests.covering import each_pair, each_value
from tests.estimators.networks import adaptive, images, labels, plain
from tests.robustness.models import linear

ESTIMATORS = (*SIGMOIDS, *CUTS, *ENSEMBLE, *ALTERNATIVES)
RULES = [rule for rule in ESTIMATORS if not isinstance(rule, AdaptiveSharpness)]
CODE_PATHS = {
    (type(estimator), type(estimator.surrogate) if isinstance(estimator, GradientRule) else None): estimator
    for estimator in (*SIGMOIDS, *ENSEMBLE, *ALTERNATIVES)
}
ONE_OF_EACH = (*CUTS, *CODE_PATHS.values())
"""Every cut, every surrogate once and every other estimator: code that widths and peaks do not change."""

NETWORKS = (plain, adaptive)
EVERY = pytest.mark.parametrize("estimator", ONE_OF_EACH, ids=estimator_name)
THREAT = Threat(Linf(0.1))
Build = Callable[..., nn.Sequential]


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


def gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return input_gradient(model, x, y, cross_entropy).gradient


@pytest.mark.parametrize(
    ("estimator", "build", "emit", "reset"), each_pair(ESTIMATORS, NETWORKS, tuple(Emit), tuple(Reset))
)
def test_the_forward_keeps_its_bits(estimator: Estimator, build: Build, emit: Emit, reset: Reset) -> None:
    network, x = build(reset, emit), images()
    with torch.no_grad():
        expected = network(x)
    twin = differentiated(network, estimator, len(x))
    assert expected.abs().max() > 0.01, "a silent network proves nothing"
    assert torch.equal(twin(x), expected) and torch.equal(twin(x.clone().requires_grad_()), expected)
    with torch.no_grad():
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["eager", "fused"])
@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("rule", [rule for rule in ONE_OF_EACH if rule in RULES], ids=estimator_name)
def test_potentials_have_no_unit(rule: Rule, build: Build, dtype: torch.dtype) -> None:
    """Weights, thresholds and signatures four times as large: the same spikes, so the same gradient.

    ASSG is left out: it adds 1e-4 to distances, which matters for the neurons that are as near as that.
    """
    network = copy.deepcopy(build()).to(dtype)
    enlarged = copy.deepcopy(network)
    with torch.no_grad():
        for layer in list(enlarged)[:5]:
            for values in (*layer.buffers(), *(p for name, p in layer.named_parameters() if "adaptation" not in name)):
                values.mul_(4)
    for layer in neurons(enlarged).values():
        layer.dynamics = replace(layer.dynamics, threshold=4.0)
    x, y = images().to(dtype), labels()
    with torch.no_grad():
        assert torch.equal(enlarged(x), network(x))
    found, expected = (gradient(differentiated(model, rule, len(x)), x, y) for model in (enlarged, network))
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("rule", "kind"), each_value(RULES, tuple(product(NETWORKS, Reset))))
def test_every_quantity_of_a_layer_keeps_its_bits(rule: Rule, kind: tuple[Build, Reset]) -> None:
    build, reset = kind
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


@pytest.mark.parametrize(("estimator", "kind"), each_value(ESTIMATORS, tuple(product(NETWORKS, Emit))))
def test_a_gradient_arrives_and_attacks_move(estimator: Estimator, kind: tuple[Build, Emit]) -> None:
    build, emit = kind
    network, x, y = build(emit=emit), images(), labels()
    slope = gradient(differentiated(network, estimator, len(x)), x, y)
    assert slope.isfinite().all() and (slope != 0).any()
    x_adv = Through(estimator, PGD(THREAT, steps=2, start=at_clean))(network, x, y, rng())
    assert THREAT.allows(x_adv, x).all() and not torch.equal(x_adv, x)


@pytest.mark.parametrize("build", NETWORKS)
@EVERY
def test_samples_do_not_change_each_others_gradient(build: Build, estimator: Estimator) -> None:
    network, x, y = build(), images(), labels()
    whole = gradient(differentiated(network, estimator, 6), x, y)
    parts = [gradient(differentiated(network, estimator, 2), x[at], y[at]) for at in torch.arange(6).view(3, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("build", NETWORKS)
@EVERY
def test_an_attack_through_an_estimator_treats_each_sample_alone(build: Build, estimator: Estimator) -> None:
    network, x, y = build(), images(), labels()
    attack = Through(estimator, PGD(THREAT, steps=2, step_size=0.4))
    whole = attack(network, x, y, rng())
    chosen = torch.tensor([4, 1])
    alone = attack(network, x[chosen], y[chosen], rng().subset(chosen))
    torch.testing.assert_close(alone, whole[chosen], rtol=0, atol=1e-9)
    assert torch.equal(attack(network, x, y, rng()), whole), "no state survives a call"


@EVERY
def test_a_model_without_spiking_layers_is_attacked_as_it_is(estimator: Estimator) -> None:
    x, y = images(), labels()
    with pytest.warns(NoEffectWarning):
        attacked = Through(estimator, fgsm(THREAT))(linear(), x, y, rng())
    assert torch.equal(attacked, fgsm(THREAT)(linear(), x, y, rng()))


def test_an_estimator_is_a_frozen_value_with_a_stable_repr() -> None:
    for estimator in ESTIMATORS:
        same = type(estimator)(**{field.name: getattr(estimator, field.name) for field in fields(estimator)})
        assert same == estimator and hash(same) == hash(estimator) and repr(same) == repr(estimator)
        assert " at 0x" not in repr(estimator) and "lambda" not in repr(estimator)
        with pytest.raises(FrozenInstanceError):
            estimator.anything = 1  # type: ignore[union-attr]


def test_cuts_of_the_threshold_are_bptt_on_a_plain_network_and_not_on_an_adaptive_one() -> None:
    x, y = images(), labels()
    cut = GradientRule(threshold=False)
    for build, same in ((plain, True), (adaptive, False)):
        found = [gradient(differentiated(build(), rule, 6), x, y) for rule in (cut, bptt())]
        assert torch.equal(found[0], found[1]) is same
