from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hosnn.data import fashion_mnist_sample
from hosnn.errors import ConfigError
from hosnn.estimators import OnFrames, OnTraces, Through, TraceCrossEntropy
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.protocols.builtin import PROTOCOLS, protocol_by_name, standard, sweep
from hosnn.protocols.estimator_search import search_panel
from hosnn.protocols.paper import PaperChoices, paper
from hosnn.protocols.protocol import AttackSpec, PanelPlan, Protocol
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import EOT
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt, tssl_bp

THREAT = Threat(Linf(8 / 255))


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    torch.manual_seed(0)
    return LeNet(channels=(3, 4), hidden=16).build().eval()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return fashion_mnist_sample().test.batch(torch.arange(6))


def attacked(network: SpikingNetwork, batch: tuple[Tensor, Tensor], choices: PaperChoices) -> Tensor:
    """PGD-7 under the paper protocol with these choices."""
    spec = {spec.name: spec for spec in paper(THREAT, choices).attacks}["PGD-7"]
    return spec.attack(network, *batch, SampleRandom(0, torch.arange(len(batch[1]))))


def test_each_protocol_is_found_by_its_name() -> None:
    for name in PROTOCOLS:
        assert protocol_by_name(name, THREAT).name == name


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown protocol 'smokee'.*did you mean 'smoke'"):
        protocol_by_name("smokee", THREAT)


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("threat", ["linf:8/255", "l2:1/2", "l1:3", "linf:8/255/step", "linf:0"])
def test_names_within_a_protocol_and_its_panels_are_unique_under_every_threat(make, threat) -> None:
    made = make(Threat.parse(threat))
    for attacks in (made.attacks, *(panel.attacks for panel in made.panels)):
        assert len({spec.name for spec in attacks}) == len(attacks) > 0


def test_paper_takes_the_attacks_of_the_authors() -> None:
    assert [spec.name for spec in paper().attacks] == ["FGSM", "R-FGSM", "BIM-7", "PGD-7"]
    assert paper().samples is None and not paper().cascade


def test_per_step_yields_frames_that_differ_and_its_absence_images(network, batch) -> None:
    frames = attacked(network, batch, PaperChoices())
    assert frames.shape == (6, network.steps, 1, 28, 28)
    assert not torch.equal(frames[:, 0], frames[:, 1])
    assert attacked(network, batch, PaperChoices(per_step=False)).shape == batch[0].shape


def test_unclamped_pixels_leave_the_valid_range_and_clamped_ones_do_not(network, batch) -> None:
    assert attacked(network, batch, PaperChoices()).aminmax()[0] < 0
    low, high = attacked(network, batch, PaperChoices(unclamped=False)).aminmax()
    assert low >= 0 and high <= 1


@pytest.mark.parametrize(("truncated", "rule"), [(True, tssl_bp()), (False, bptt())])
def test_the_truncated_gradient_is_the_attackers_rule(truncated, rule, network, batch) -> None:
    for spec in paper(THREAT, PaperChoices(truncated_gradient=truncated)).attacks:
        assert isinstance(spec.attack, Through) and spec.attack.rule == rule


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize(("on_traces", "loss"), [(True, TraceCrossEntropy()), (False, cross_entropy)])
def test_the_trace_loss_is_the_attackers_loss(on_traces, loss, per_step) -> None:
    for spec in paper(THREAT, PaperChoices(trace_loss=on_traces, per_step=per_step)).attacks:
        attack: Any = spec.attack
        while hasattr(attack, "attack"):
            attack = attack.attack
        assert attack.loss == loss


@pytest.mark.parametrize(
    "other", [{"truncated_gradient": False}, {"trace_loss": False}, {"unclamped": False}], ids=lambda o: next(iter(o))
)
def test_each_choice_changes_the_perturbation(other, network, batch) -> None:
    assert not torch.equal(attacked(network, batch, PaperChoices()), attacked(network, batch, PaperChoices(**other)))


def test_a_scalar_std_changes_nothing_for_one_channel(network, batch) -> None:
    choices = PaperChoices(scalar_std=True, mean=(0.286,), std=(0.353,))
    plain, scaled = (attacked(network, batch, each) for each in (PaperChoices(), choices))
    same = torch.isclose(plain, scaled, atol=1e-5).double().mean()
    assert same > 0.98  # rounding may flip the sign of a vanishing gradient


def test_a_scalar_std_needs_the_std() -> None:
    with pytest.raises(ConfigError, match="needs mean and std"):
        paper(THREAT, PaperChoices(scalar_std=True))


@pytest.mark.parametrize("make", [paper, sweep])
def test_a_protocol_runs_on_a_spiking_network(make, network) -> None:
    made = make(THREAT).resized(6)
    short: tuple[AttackSpec, ...] = made.attacks if make is paper else made.attacks[:1]
    result = evaluate(
        network, fashion_mnist_sample(), replace(made, attacks=short, panels=made.panels[:1]).resized(6, 6)
    )
    assert result.samples == 6 and result.threat == str(made.threat)
    assert ("/step" in result.threat) == (make is paper)


def test_two_attacks_of_one_name_or_panels_of_one_name_are_refused() -> None:
    """The second would take the first one's results."""
    attack = AttackSpec(name="PGD", attack=PGD(THREAT), threat=THREAT)
    plan = partial(Protocol, name="mine", description="", threat=THREAT, samples=10)
    with pytest.raises(ConfigError, match="'PGD' occurs twice"):
        plan(attacks=(attack, replace(attack, id="other")))
    with pytest.raises(ConfigError, match="'PGD' occurs twice"):
        plan(attacks=(attack, replace(attack, name="other", id="PGD")))
    with pytest.raises(ConfigError, match="panel 'eps' occurs twice"):
        plan(attacks=(attack,), panels=(PanelPlan("eps", (attack,), 5),) * 2)


def test_the_search_perturbs_every_time_step_if_the_threat_does() -> None:
    for threat, kind in ((THREAT, APGD), (replace(THREAT, per_step=True), OnFrames)):
        search = standard(threat).search
        assert search is not None
        assert {type(spec.attack) for spec in search_panel(search, threat).attacks} == {kind}


def test_attacks_on_frames_and_traces_see_the_mean_of_a_random_model() -> None:
    for spec in paper(THREAT).attacks:
        attack: Any = spec.assembled(eot_samples=3)
        seen = [type(attack)]
        while hasattr(attack, "attack"):
            attack = attack.attack
            seen.append(type(attack))
        assert seen == [Through, OnFrames, OnTraces, EOT, PGD]
