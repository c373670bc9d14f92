"""Estimators change only the backward pass of a spiking model; attack wrappers change its inputs or outputs."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_pre_hooks

from hosnn.errors import ConfigError, NoEffectWarning
from hosnn.estimators import (
    BPTR,
    AdaptiveSharpness,
    Estimator,
    InNormalisedUnits,
    OnFrames,
    OnTraces,
    Through,
    TraceCrossEntropy,
    with_rule,
)
from hosnn.nn.layers import ConstantCoding, SpikingNetwork
from hosnn.nn.neurons import LIF, neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Worst
from hosnn.robustness.losses import cross_entropy
from hosnn.robustness.model import Attack, count_passes, input_gradient
from hosnn.robustness.pgd import PGD, Restart, fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.decoding import target_traces
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.surrogate import SURROGATES, Arctan
from tests.covering import each_value
from tests.nn.test_networks import TINY, images, lif_network, talif_network
from tests.robustness.models import linear

RULES = {
    "bptt": bptt(),
    "no threshold": GradientRule(threshold=False),
    "no leak": GradientRule(leak=False),
    "no reset": GradientRule(reset=False),
    "at rest": GradientRule(at_resting_threshold=True),
    **{kind.__name__: bptt(kind()) for kind in SURROGATES},
}
NETWORKS = pytest.mark.parametrize("build", [lif_network, talif_network])
THREAT = Threat(Linf(8 / 255))


def labels(count: int = 6) -> Tensor:
    return torch.arange(count) % 10


def rng(count: int = 6) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


def gradient(model: nn.Module) -> Tensor:
    return input_gradient(model, images(), labels(), cross_entropy).gradient


@pytest.mark.parametrize(("rule", "build"), each_value(tuple(RULES.values()), (lif_network, talif_network)))
def test_another_rule_changes_the_gradient_and_not_one_bit_of_the_forward(build: type, rule: GradientRule) -> None:
    network = build()
    twin = with_rule(network, rule)
    assert torch.equal(twin(images()), network(images())) and torch.equal(
        twin.outputs(images()), network.outputs(images())
    )
    assert not torch.equal(gradient(twin), gradient(network))


@NETWORKS
def test_the_twin_shares_every_tensor_and_leaves_the_original_its_rule(build: type) -> None:
    network = build()
    before = {name: layer.rule for name, layer in neurons(network).items()}
    twin = with_rule(network, bptt(Arctan()))
    assert all(layer.rule == bptt(Arctan()) for layer in neurons(twin).values())
    assert {name: layer.rule for name, layer in neurons(network).items()} == before and tssl_bp() in before.values()
    mine = dict((*network.named_parameters(), *network.named_buffers()))
    theirs = dict((*twin.named_parameters(), *twin.named_buffers()))
    assert mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)
    assert type(twin) is type(network) and twin is not network
    with torch.no_grad():
        next(network.parameters()).zero_()
    assert torch.equal(twin(images()), network(images())), "later training of the one is seen by the other"


def test_the_twin_has_the_originals_mode() -> None:
    network = lif_network()
    for training in (True, False):
        assert with_rule(network.train(training), bptt()).training is training


@NETWORKS
def test_through_attacks_the_twin(build: type) -> None:
    network, attack = build(), PGD(THREAT, steps=2, step_size=0.5)
    got = Through(bptt(Arctan()), attack)(network, images(), labels(), rng())
    assert torch.equal(got, attack(with_rule(network, bptt(Arctan())), images(), labels(), rng()))
    assert not torch.equal(got, attack(network, images(), labels(), rng()))
    assert THREAT.allows(got, images()).all()


def test_through_its_own_rule_is_the_attack_itself() -> None:
    network = talif_network()
    expected = fgsm(THREAT)(network, images(), labels(), rng())
    assert torch.equal(Through(TINY.rule, fgsm(THREAT))(network, images(), labels(), rng()), expected)


def test_through_leaves_other_models_as_they_are_and_says_so() -> None:
    x, y = torch.rand(6, 1, 3, 4, dtype=torch.float64), labels() % 3
    with pytest.warns(NoEffectWarning, match="does nothing on Sequential"):
        attacked = Through(bptt(), fgsm(THREAT))(linear(), x, y, rng())
    assert torch.equal(attacked, fgsm(THREAT)(linear(), x, y, rng()))


def test_a_rule_for_a_network_without_spiking_layers_says_that_it_does_nothing() -> None:
    x = torch.rand(6, 1, 3, 4, dtype=torch.float64)
    with pytest.warns(NoEffectWarning, match="no hosnn spiking layer"):
        same = with_rule(linear(), bptt())
    assert torch.equal(same(x), linear()(x))


@pytest.mark.parametrize("attack", [fgsm(THREAT), PGD(THREAT, steps=2)], ids=["fgsm", "pgd"])
def test_attacks_on_frames_move_every_step_by_itself(attack: PGD) -> None:
    network, x = lif_network(), images()
    frames = OnFrames(attack)(network, x, labels(), rng())
    repeated = x[:, None].expand(-1, TINY.steps, -1, -1, -1)
    assert frames.shape == repeated.shape and network(frames).shape == (6, 10)
    assert Threat(Linf(8 / 255), per_step=True).allows(frames, repeated).all()
    assert not torch.equal(frames[:, 0], frames[:, 1])


def test_inputs_that_are_frames_already_are_attacked_as_they_are() -> None:
    network = lif_network()
    recordings = torch.rand(6, TINY.steps, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    attacked = OnFrames(fgsm(THREAT))(network, recordings, labels(), rng())
    assert torch.equal(attacked, fgsm(THREAT)(network, recordings, labels(), rng()))
    assert attacked.shape == recordings.shape


def test_attacks_on_frames_are_never_weaker_to_first_order() -> None:
    """Per-step perturbations contain the image perturbations: the gradient's dual norm can only grow."""
    network, x = talif_network().double(), images().double()
    frames = x[:, None].expand(-1, TINY.steps, -1, -1, -1).contiguous()
    per_step = input_gradient(network, frames, labels(), cross_entropy).gradient
    image = input_gradient(network, x, labels(), cross_entropy).gradient
    torch.testing.assert_close(per_step.sum(1), image, rtol=1e-9, atol=1e-15)
    assert (per_step.abs().flatten(1).sum(1) >= image.abs().flatten(1).sum(1) - 1e-15).all()


def test_attacks_on_traces_raise_a_loss_over_time() -> None:
    network, loss = talif_network(), TraceCrossEntropy()
    x, y = images(), labels()
    x_adv = OnTraces(fgsm(THREAT, loss))(network, x, y, rng())
    moving = x.clone().requires_grad_()
    targets = target_traces(y, loss.spikes, 10, loss.tau_synapse)
    written_out = -(targets * network.outputs(moving).log_softmax(2)).sum(2).mean(0)
    (expected,) = torch.autograd.grad(written_out.sum(), moving)
    torch.testing.assert_close(x_adv, THREAT.project(x + 8 / 255 * expected.sign(), x))
    assert THREAT.allows(x_adv, x).all()


def test_one_time_step_leaves_the_cross_entropy_of_logits() -> None:
    """The authors' target begins with a step without a spike; alone it would leave an ANN without a gradient."""
    outputs, y = torch.randn(1, 6, 10, generator=torch.Generator().manual_seed(2)), torch.arange(6)
    loss, expected = TraceCrossEntropy()(outputs, y), cross_entropy(outputs[0], y)
    torch.testing.assert_close(loss / loss[0], expected / expected[0])


def test_rules_and_attack_wrappers_compose() -> None:
    network, x, y = talif_network(), images(), labels()
    attack = Through(bptt(), OnFrames(OnTraces(fgsm(THREAT, TraceCrossEntropy()))))
    frames = attack(network, x, y, rng())
    expected = OnFrames(OnTraces(fgsm(THREAT, TraceCrossEntropy())))(with_rule(network, bptt()), x, y, rng())
    assert torch.equal(frames, expected)


def test_a_rule_inside_a_view_is_not_lost() -> None:
    """Attacking by the training rule in place of the one asked for would flatter the model in silence."""
    network, x, y = talif_network(), images(), labels()
    attack = fgsm(THREAT, TraceCrossEntropy())
    inside = OnTraces(Through(bptt(), attack))(network, x, y, rng())
    assert torch.equal(inside, Through(bptt(), OnTraces(attack))(network, x, y, rng()))
    assert not torch.equal(inside, OnTraces(attack)(network, x, y, rng()))


def test_the_worst_of_attacks_on_frames_is_frames() -> None:
    network, x = talif_network(), images()
    y = network(x).argmax(1)
    members = tuple(OnFrames(PGD(THREAT, steps=1, step_size=size)) for size in (0.01, 1.0))
    frames = Worst(members)(network, x, y, rng())
    assert frames.shape == (6, TINY.steps, 1, 28, 28)
    alone = [Restart(member, number, "member") for number, member in enumerate(members)]
    lost = [network(member(network, x, y, rng())).argmax(1) != y for member in alone]
    assert torch.equal(network(frames).argmax(1) != y, lost[0] | lost[1])


@pytest.mark.parametrize("inner", [fgsm, lambda threat: PGD(threat, steps=3)], ids=["fgsm", "pgd"])
def test_normalised_units_equal_pixels_for_one_channel(inner: type) -> None:
    std = 0.353
    network, x, y = lif_network().double(), images().double(), labels()
    in_pixels = inner(Threat(Linf(0.1), domain=None))(network, x, y, rng())
    in_z = InNormalisedUnits(inner(Threat(Linf(0.1 / std), domain=None)), (0.286,), (std,))(network, x, y, rng())
    torch.testing.assert_close(in_z, in_pixels, rtol=0, atol=1e-12)


def test_normalised_units_share_one_budget_over_channels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = torch.rand(6, 2, 2, 2, dtype=torch.float64), labels() % 3
    x_adv = InNormalisedUnits(fgsm(Threat(Linf(0.1), domain=None)), (0.4, 0.5), (0.2, 0.4))(model, x, y, rng())
    expected = torch.tensor([0.02, 0.04], dtype=torch.float64)[:, None, None].expand_as(x)
    torch.testing.assert_close((x_adv - x).abs(), expected)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (OnFrames(fgsm(THREAT)), "threat per time step got a Sequential; expected a hosnn SpikingNetwork"),
        (OnTraces(fgsm(THREAT)), "loss over output traces got a Sequential"),
    ],
)
def test_attack_wrappers_raise_for_models_without_time_steps_or_outputs(attack: Attack, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attack(linear(), torch.rand(6, 1, 3, 4, dtype=torch.float64), labels() % 3, rng())


def test_weights_gradients_are_untouched_by_crafting() -> None:
    network: SpikingNetwork = talif_network()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for attack in (Through(bptt(), fgsm(THREAT)), OnFrames(fgsm(THREAT)), OnTraces(fgsm(THREAT, TraceCrossEntropy()))):
        attack(network, images(), labels(), rng())
    assert all(bool((p.grad == 1).all()) for p in network.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in network.parameters())


class Captured(nn.Module):
    """Runs its spiking layer by way of a function that captured it, as some conversions from other libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.coding, self.layer = ConstantCoding(5), LIF()
        self.run: Callable[[Tensor], Tensor] = lambda x: self.layer(3 * x)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.run(self.coding(x))
        return seen.mean(0).flatten(1)[:, :3]


class Listed(Captured):
    """Keeps a second layer where no one finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [LIF()]
        self.run = self.through

    def through(self, x: Tensor) -> Tensor:
        seen: Tensor = self.layer(3 * self.hidden[0](3 * x))
        return seen


@pytest.mark.parametrize("rule", [bptt(Arctan()), BPTR(), AdaptiveSharpness()], ids=repr)
@pytest.mark.parametrize("build", [Captured, Listed])
def test_layers_that_no_copy_reaches_raise(build: type, rule: Estimator) -> None:
    """Also in a copy of a copy, as each thread has one; the first forward pass raises."""
    x, y = torch.rand(6, 1, 3, 4), labels() % 3
    for network in (build(), copy.deepcopy(build())):
        with (
            count_passes() as passes,
            pytest.raises(ConfigError, match=r"1 spiking layers where a copy.*nn\.ModuleList"),
        ):
            Through(rule, PGD(THREAT, steps=3))(network, x, y, rng())
        assert passes.forward == 6
    assert not _global_forward_pre_hooks


def test_another_thread_may_run_the_network_meanwhile() -> None:
    network, x, y = lif_network(), images(), labels()
    attack, others = Through(bptt(Arctan()), fgsm(THREAT)), threading.Event()

    def run() -> None:
        while not others.is_set():
            network(x[:1])

    expected = attack(network, x, y, rng())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            for _ in range(5):
                assert torch.equal(attack(network, x, y, rng()), expected)
        finally:
            others.set()
        running.result()


class LastReadout(nn.Module):
    """The last time step decides."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[-1]


def test_traces_of_a_network_that_does_not_decide_by_their_mean_raise() -> None:
    network = lif_network()
    other = SpikingNetwork(network.normalise, network.coding, network.body, LastReadout())
    attack = OnTraces(fgsm(THREAT, TraceCrossEntropy()))
    for one in (attack, Through(bptt(), attack), Through(AdaptiveSharpness(), attack)):
        with pytest.raises(ConfigError, match=r"the readout LastReadout.*not the network's own decision"):
            one(other, images(), labels(), rng())
