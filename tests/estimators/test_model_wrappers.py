"""Wrapped models offer attacks all that a network does, and give access to the network inside."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hosnn.estimators import AdaptiveSharpness, Estimator, InNormalisedUnits, OnFrames, OnTraces, Through
from hosnn.estimators.model_wrappers import WrappedModel
from hosnn.estimators.rules import differentiated
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Worst
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.model import Attack, AveragedModel, Model, input_gradient
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Arctan
from tests.estimators.networks import labels
from tests.nn.test_networks import TINY, images, talif_network

THREAT = Threat(Linf(8 / 255))
RULES = pytest.mark.parametrize("rule", [bptt(Arctan()), AdaptiveSharpness()], ids=repr)


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


@dataclass(frozen=True)
class EOT:
    """Expectation over transformation as an attack that wraps another."""

    attack: Attack
    times: int = 2

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(AveragedModel(model, self.times), x, y, rng)


@RULES
def test_an_estimator_works_on_either_side_of_every_attack_wrapper(rule: Estimator) -> None:
    """Attacking by the training rule in place of the one asked for would flatter the model in silence."""
    network, x, y = talif_network().double(), images().double(), labels()
    attack = PGD(Threat(Linf(8 / 255), domain=None), steps=2)
    norm = ((0.3,), (0.5,))
    for outside, inside in (
        (Through(rule, OnFrames(attack)), OnFrames(Through(rule, attack))),
        (Through(rule, EOT(attack)), EOT(Through(rule, attack))),
        (Through(rule, InNormalisedUnits(attack, *norm)), InNormalisedUnits(Through(rule, attack), *norm)),
    ):
        found = outside(network, x, y, rng())
        assert torch.equal(inside(network, x, y, rng()), found)
        assert not torch.equal(outside.attack(network, x, y, rng()), found), "the rule is at work"


@RULES
def test_members_of_an_ensemble_go_on_with_rows(rule: Estimator) -> None:
    network, x = talif_network(), images()
    y = network(x).argmax(1)
    found = Through(rule, Worst((fgsm(THREAT), PGD(THREAT, steps=3))))(network, x, y, rng())
    assert THREAT.allows(found, x).all()
    lost = network(found).argmax(1) != y
    assert (lost | ~(network(Through(rule, fgsm(THREAT))(network, x, y, rng())).argmax(1) != y)).all()


def test_the_inner_rule_is_the_one_that_counts() -> None:
    network, x, y = talif_network(), images(), labels()
    for inner in (bptt(Arctan()), AdaptiveSharpness()):
        for outer in (bptt(), AdaptiveSharpness(0.35)):
            nested = Through(outer, Through(inner, fgsm(THREAT)))(network, x, y, rng())
            assert torch.equal(nested, Through(inner, fgsm(THREAT))(network, x, y, rng()))


@RULES
def test_time_steps_and_outputs_are_passed_on(rule: Estimator) -> None:
    network, x = talif_network(), images()
    wrapped = WrappedModel(differentiated(network, rule, len(x)))
    assert wrapped.steps == TINY.steps
    assert torch.equal(wrapped.outputs(x), network.outputs(x)) and torch.equal(wrapped(x), network(x))
    assert isinstance(wrapped.outputs, WrappedModel)
    assert input_gradient(wrapped, x, labels(), cross_entropy).gradient.shape == x.shape


def test_a_wrapped_function_has_neither_steps_nor_outputs() -> None:
    wrapped = WrappedModel(lambda x: x)
    assert not hasattr(wrapped, "steps") and not hasattr(wrapped, "outputs")
    with wrapped.state_frozen():
        assert torch.equal(wrapped.subset(torch.tensor([0]))(images()), images())


@RULES
def test_a_method_of_a_network_is_differentiated_with_it(rule: Estimator) -> None:
    network, x, y = talif_network(), images(), labels()
    attack = fgsm(THREAT)
    by_method = Through(rule, attack)(network.forward, x, y, rng())
    assert torch.equal(by_method, Through(rule, attack)(network, x, y, rng()))
    assert torch.equal(differentiated(network.outputs, rule, 6)(x), network.outputs(x))
    assert OnTraces(Through(rule, fgsm(THREAT, _first_step)))(network, x, y, rng()).shape == x.shape


def _first_step(outputs: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(outputs[0], y)
