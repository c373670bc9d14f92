"""Attacks aimed at homeostasis: their terms say what they claim, and success is judged by the true scores."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.estimators import (
    BPTR,
    AdaptiveLoss,
    AdaptiveSharpness,
    AgainstHomeostasis,
    LowerThresholds,
    OnFrames,
    OnTraces,
    SearchedSharpness,
    SignatureDeviation,
    SilenceNeurons,
    Through,
    TraceCrossEntropy,
)
from hosnn.nn.neurons import LIF, TALIF, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Noise, Transfer, Worst
from hosnn.robustness.model import Attack, AveragedModel, Model
from hosnn.robustness.pgd import PGD, at_clean, fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt, tssl_bp
from hosnn.spiking.kernels.eager import record_layers
from hosnn.spiking.state import Trajectory
from tests.covering import each_value
from tests.estimators.networks import adaptive, images, labels, plain
from tests.nn import test_networks as lenets
from tests.robustness.models import linear

TERMS = (LowerThresholds(), SilenceNeurons(), SilenceNeurons(top_only=True), SignatureDeviation())
EVERY = pytest.mark.parametrize("term", TERMS, ids=repr)
THREAT = Threat(Linf(0.1))
ATTACK = PGD(THREAT, steps=4, step_size=0.4, start=at_clean, keep_best=False)


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


def runs(network: nn.Module, x: Tensor) -> dict[str, tuple[Trajectory, LIF]]:
    """Every layer and its run, by hooks: independent of `record_layers`."""
    layers, currents = neurons(network), {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: currents.update({name: given[0]}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        network(x)
        found = {name: (layer.trajectory(currents[name]), layer) for name, layer in layers.items()}
    for hook in hooks:
        hook.remove()
    return found


def by_hand(term: AdaptiveLoss, network: nn.Module, x: Tensor) -> Tensor:
    values = []
    for run, layer in runs(network, x).values():
        assert isinstance(layer, TALIF)
        size = layer.signature.square().mean().sqrt()
        for_each = []
        for sample in range(len(x)):
            u, theta, s = run.membrane[:, sample], run.threshold[:, sample], run.spikes[:, sample]
            for_each.append(
                {
                    "LowerThresholds": -(theta - 1).mean() / size,
                    "SilenceNeurons": -(s.mean() + 1e-3).log(),
                    "SignatureDeviation": ((u - layer.signature) ** 2).mean() / size**2,
                }[type(term).__name__]
            )
        values.append(torch.stack(for_each))
    return values[-1] if term == SilenceNeurons(top_only=True) else torch.stack(values).mean(0)


@EVERY
def test_a_term_is_what_it_claims(term: AdaptiveLoss) -> None:
    network, x = adaptive(), images()
    with record_layers() as layers:
        network(x)
    torch.testing.assert_close(term(layers), by_hand(term, network, x))


@pytest.mark.parametrize(("term", "rule"), each_value(TERMS, (bptt(), BPTR(), AdaptiveSharpness())))
def test_an_attack_drives_the_neurons_where_the_term_says(term: AdaptiveLoss, rule: object) -> None:
    network, x, y = adaptive(), images(), labels()
    through = Through(rule, AgainstHomeostasis(ATTACK, term, weight=100.0))  # type: ignore[arg-type]
    driven = through(network, x, y, rng())
    assert THREAT.allows(driven, x).all()
    plainly = Through(rule, ATTACK)(network, x, y, rng())  # type: ignore[arg-type]
    assert by_hand(term, network, driven).mean() > by_hand(term, network, plainly).mean()
    assert by_hand(term, network, driven).mean() > by_hand(term, network, x).mean()


@pytest.mark.parametrize(("term", "rule"), each_value(TERMS, (bptt(), tssl_bp(), BPTR(), AdaptiveSharpness())))
def test_a_term_without_weight_is_the_attack_itself(term: AdaptiveLoss, rule: object) -> None:
    network, x, y = adaptive(), images(), labels()
    got = Through(rule, AgainstHomeostasis(ATTACK, term, 0.0))(network, x, y, rng())  # type: ignore[arg-type]
    expected = Through(rule, ATTACK)(network, x, y, rng())  # type: ignore[arg-type]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@EVERY
def test_samples_are_attacked_alone(term: AdaptiveLoss) -> None:
    network, x, y = adaptive(), images(), labels()
    attack = Through(bptt(), AgainstHomeostasis(replace(ATTACK, keep_best=True), term))
    whole, chosen = attack(network, x, y, rng()), torch.tensor([4, 1])
    alone = attack(network, x[chosen], y[chosen], rng().subset(chosen))
    torch.testing.assert_close(alone, whole[chosen], rtol=0, atol=1e-9)


def test_success_is_judged_by_the_true_scores() -> None:
    """With nothing but the term to climb, a point kept on the way is still one that the model misclassifies."""
    network, x = plain(), images(40)
    with torch.no_grad():
        y = network(x).argmax(1)
    attack = AgainstHomeostasis(PGD(Threat(Linf(0.5)), steps=6, step_size=0.3), SilenceNeurons(), weight=1e6)
    last = AgainstHomeostasis(replace(attack.attack, keep_best=False), attack.term, attack.weight)  # type: ignore[type-var]
    with torch.no_grad():
        kept, left = (network(each(network, x, y, rng(40))).argmax(1) != y for each in (attack, last))
    assert (kept | ~left).all() and kept.sum() > 0


def test_the_order_of_estimator_and_term_does_not_matter() -> None:
    network, x, y = adaptive(), images(), labels()
    for rule in (bptt(), AdaptiveSharpness(), BPTR()):
        outside = Through(rule, AgainstHomeostasis(ATTACK, SignatureDeviation()))
        inside = AgainstHomeostasis(Through(rule, ATTACK), SignatureDeviation())
        assert torch.equal(outside(network, x, y, rng()), inside(network, x, y, rng()))


WRAPS: dict[str, Callable[[PGD], Attack]] = {
    "frames": OnFrames,
    "traces": lambda attack: OnTraces(replace(attack, loss=TraceCrossEntropy())),
    "frames of traces": lambda attack: OnFrames(OnTraces(replace(attack, loss=TraceCrossEntropy()))),
    "worst": lambda attack: Worst((attack, replace(attack, steps=2))),
    "traces, searched": lambda attack: OnTraces(SearchedSharpness(replace(attack, loss=TraceCrossEntropy()), rounds=1)),
    "searched": lambda attack: SearchedSharpness(attack, probe=replace(attack, steps=1), rounds=1),
}


@pytest.mark.parametrize(("wrap", "term"), each_value(tuple(WRAPS.values()), TERMS))
def test_terms_reach_through_attack_wrappers_and_ensembles(wrap: Callable[[PGD], Attack], term: AdaptiveLoss) -> None:
    network, x, y = lenets.talif_network(), lenets.images(), labels()
    attack = wrap(replace(ATTACK, steps=2))
    driven = Through(bptt(), AgainstHomeostasis(attack, term, 100.0))(network, x, y, rng())
    plainly = Through(bptt(), attack)(network, x, y, rng())
    assert driven.shape == plainly.shape and not torch.equal(driven, plainly)
    assert torch.equal(driven, AgainstHomeostasis(Through(bptt(), attack), term, 100.0)(network, x, y, rng()))


def test_a_fixed_model_averaged_over_several_calls_is_the_model() -> None:
    network, x, y = adaptive(), images(), labels()
    attack = Through(bptt(), AgainstHomeostasis(ATTACK, SignatureDeviation()))
    several = attack(AveragedModel(network, 2), x, y, rng())
    torch.testing.assert_close(several, attack(network, x, y, rng()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("term", [LowerThresholds(), SignatureDeviation()], ids=repr)
@pytest.mark.parametrize("model", [plain(), linear()], ids=["LIF", "no spikes"])
def test_terms_about_adaptation_refuse_networks_without(term: AdaptiveLoss, model: Model) -> None:
    with pytest.raises(ConfigError, match=r"needs TALIF layers, but the model has none; .*homeostatic"):
        AgainstHomeostasis(ATTACK, term)(model, images(), labels(), rng())


def test_silence_needs_neurons_only() -> None:
    assert not torch.equal(AgainstHomeostasis(ATTACK, SilenceNeurons())(plain(), images(), labels(), rng()), images())
    with pytest.raises(ConfigError, match="LIF or TALIF layers, but the model has none"):
        AgainstHomeostasis(ATTACK, SilenceNeurons())(linear(), images(), labels(), rng())


@pytest.mark.parametrize("attack", [Noise(THREAT), Worst((ATTACK, Noise(THREAT))), Through(bptt(), Noise(THREAT))])
def test_attacks_without_a_loss_raise(attack: Attack) -> None:
    with pytest.raises(ConfigError, match="has no loss to add a term to"):
        AgainstHomeostasis(attack, SignatureDeviation())(adaptive(), images(), labels(), rng())


def test_a_loss_of_another_models_scores_raises() -> None:
    with pytest.raises(ConfigError, match="other than the last ones of the model under attack"):
        attack = AgainstHomeostasis(Transfer(adaptive(), fgsm(THREAT)), SignatureDeviation())
        attack(adaptive(), images(), labels(), rng())


@EVERY
def test_a_value_has_a_stable_repr(term: AdaptiveLoss) -> None:
    text = repr(AgainstHomeostasis(ATTACK, term, 0.5))
    assert type(term).__name__ in text and "lambda" not in text and "_LossWithTerm" not in text
