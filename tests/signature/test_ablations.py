"""Controls: each keeps one effect of homeostasis and drops the others, and leaves its argument as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError, SignatureError
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, Emit, Extrapolation, constrain_, hidden_neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature import Share, ablations, calibrate, fingerprint, homeostatic
from hosnn.signature.ablations import (
    firing_rates,
    frozen_at_mean_threshold,
    rate_matched,
    static_thresholds,
    without_adaptation,
)
from hosnn.signature.calibration import trajectories
from hosnn.spiking.dynamics import lif_step
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.state import Dynamics, Reset, State
from hosnn.spiking.surrogate import Sigmoid
from tests.nn.test_networks import images, lif_network, talif_network
from tests.signature.test_calibration import own_network, vectors

RESETS = pytest.mark.parametrize("reset", Reset)


def currents(steps: int = 5, batch: int = 4, *shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, *(shape or (6,)), generator=rng, dtype=torch.float64) + 0.6


def thresholds(steps: int = 1, *shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    return torch.rand(steps, *(shape or (6,)), generator=rng, dtype=torch.float64) + 0.4


def unrolled(x: Tensor, levels: Tensor, dynamics: Dynamics, rule: GradientRule) -> tuple[Tensor, Tensor]:
    """Traces and thresholds of a neuron stepped by hand, its threshold set before every step."""
    state, traces, seen = State(*[torch.zeros_like(x[0])] * 3), [], []
    for t, current in enumerate(x):
        level = levels[t if len(levels) > 1 else 0].expand_as(current)
        step, state = lif_step(current, state._replace(threshold=level), dynamics, rule)
        traces.append(step.trace)
        seen.append(step.threshold)
    return torch.stack(traces), torch.stack(seen)


@pytest.mark.parametrize("steps", [1, 5], ids=["constant", "per step"])
@RESETS
def test_a_neuron_fires_at_its_own_threshold(steps: int, reset: Reset) -> None:
    dynamics, levels = Dynamics(reset=reset), thresholds(steps)
    run = ThresholdLIF(levels, dynamics).trajectory(currents())
    traces, seen = unrolled(currents(), levels, dynamics, bptt())
    assert 0.1 < run.spikes.mean() < 0.9
    torch.testing.assert_close(run.threshold, seen, rtol=1e-14, atol=1e-15)
    assert torch.equal(run.trace, traces)


@pytest.mark.parametrize("emit", Emit)
@pytest.mark.parametrize("rule", [bptt(), tssl_bp()], ids=["bptt", "tssl"])
@RESETS
def test_at_the_resting_threshold_it_is_lif_bit_for_bit(emit: Emit, rule: GradientRule, reset: Reset) -> None:
    """Outputs and the gradient of the currents, in single precision."""
    plain = LIF(Dynamics(threshold=0.7, reset=reset), rule, emit)
    twin = ThresholdLIF.from_lif(plain, torch.full((1, 6), 0.7))
    found = []
    for layer in (plain, twin):
        x = currents().float().requires_grad_()
        out = layer(x)
        found.append((out, *torch.autograd.grad((out * torch.arange(6)).sum(), x)))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("steps", [1, 5], ids=["constant", "per step"])
@RESETS
def test_the_gradient_of_a_threshold_is_that_of_the_step(steps: int, reset: Reset) -> None:
    """Full BPTT: autograd through the pure step, with the threshold as a leaf."""
    dynamics, rule, x = Dynamics(reset=reset), bptt(Sigmoid(0.5)), currents()
    layer = ThresholdLIF(thresholds(steps), dynamics, rule)
    leaf = thresholds(steps).requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (got,) = torch.autograd.grad((layer(x) * upstream).sum(), layer.threshold)
    (expected,) = torch.autograd.grad((unrolled(x, leaf, dynamics, rule)[0] * upstream).sum(), leaf)
    assert expected.abs().min() > 1e-4
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("at_rest", [False, True], ids=["at θ", "at rest"])
def test_under_a_local_rule_a_threshold_gets_what_its_currents_lose(at_rest: bool) -> None:
    """s depends on u - θ only: dL/dθ = -sum dL/dI, here against autograd through the step with nothing else open."""
    rule = GradientRule(Sigmoid(0.5), False, False, False, at_resting_threshold=at_rest)
    layer, leaf, x = ThresholdLIF(thresholds(), rule=rule), thresholds().requires_grad_(), currents()
    (got,) = torch.autograd.grad(layer(x).square().sum(), layer.threshold)
    (expected,) = torch.autograd.grad(unrolled(x, leaf, layer.dynamics, rule)[0].square().sum(), leaf)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (1, 1)], ids=["channel", "layer"])
@pytest.mark.parametrize("rule", [bptt(), tssl_bp()], ids=["bptt", "tssl"])
def test_a_shared_threshold_gets_the_sum_over_its_neurons(shape: tuple[int, ...], rule: GradientRule) -> None:
    x = currents(5, 4, 2, 3, 3)
    shared = ThresholdLIF(torch.full(shape, 0.8).double(), rule=rule)
    each = ThresholdLIF(torch.full((1, 2, 3, 3), 0.8).double(), rule=rule)
    assert torch.equal(shared(x), each(x))
    gradients = [torch.autograd.grad(layer(x).square().sum(), layer.threshold)[0] for layer in (shared, each)]
    torch.testing.assert_close(gradients[0], gradients[1].sum_to_size(shape), rtol=1e-10, atol=1e-12)


def test_thresholds_per_step_end_as_the_user_chose() -> None:
    x, levels = currents(5), thresholds(3)
    with pytest.raises(ShapeError, match=r"5 time steps.*3"):
        ThresholdLIF(levels)(x)
    for beyond, rows in ((Extrapolation.HOLD_LAST, [0, 1, 2, 2, 2]), (Extrapolation.REPEAT, [0, 1, 2, 0, 1])):
        assert torch.equal(ThresholdLIF(levels, beyond=beyond)(x), ThresholdLIF(levels[rows])(x))
    assert torch.equal(ThresholdLIF(levels)(x[:2]), ThresholdLIF(levels[:2])(x[:2]))
    assert ThresholdLIF(levels[:1])(x).shape == x.shape


def test_learned_thresholds_stay_positive_and_given_ones_may_be_anything() -> None:
    learned, given = ThresholdLIF(thresholds()), ThresholdLIF(-thresholds(), learn=False)
    with torch.no_grad():
        learned.threshold.sub_(0.9)
    constrain_(nn.Sequential(learned, given))
    assert learned.threshold.min() == ThresholdLIF.MIN_THRESHOLD and learned.threshold.max() < 0.5
    assert given.threshold.max() < 0 and not list(given.parameters())
    assert set(given.state_dict()) == set(learned.state_dict()) == {"threshold"}


def test_thresholds_out_of_range_raise() -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.01"):
        ThresholdLIF(-thresholds())
    with pytest.raises(ConfigError, match="finite"):
        ThresholdLIF(thresholds() * float("nan"), learn=False)
    with pytest.raises(ConfigError, match="time first"):
        ThresholdLIF(torch.tensor(1.0))
    with pytest.raises(ConfigError, match="would not learn"):
        ThresholdLIF(thresholds(), rule=GradientRule(threshold=False))
    with pytest.raises(ShapeError, match=r"has thresholds \(1, 6\)"):
        ThresholdLIF(thresholds())(currents(5, 4, 7))


def test_without_adaptation_is_the_plain_network_bit_for_bit() -> None:
    plain, x = lif_network(), images()
    adapting = homeostatic(plain, calibrate(plain, [x]), 0.3)
    before = fingerprint(adapting)
    twin = without_adaptation(adapting)
    assert torch.equal(twin(x), plain(x)) and not torch.equal(adapting(x), plain(x))
    assert fingerprint(adapting) == before and any(isinstance(layer, TALIF) for layer in twin.modules())


@pytest.mark.parametrize("over_time", [True, False])
@pytest.mark.parametrize("size", [3, 12])
def test_frozen_thresholds_are_the_mean_adapted_ones(over_time: bool, size: int) -> None:
    network, x = talif_network().double(), images(12).double()
    before = fingerprint(network)
    twin = frozen_at_mean_threshold(network, torch.split(x, size), over_time)
    assert fingerprint(network) == before
    assert not any(isinstance(layer, TALIF) for layer in twin.modules())
    adapted, still = trajectories(network, x), trajectories(twin, x)
    for name in hidden_neurons(network):
        mean = adapted[name].threshold.mean(1, keepdim=True)
        mean = mean if over_time else mean.mean(0, keepdim=True)
        torch.testing.assert_close(still[name].threshold, mean.expand_as(still[name].threshold), rtol=1e-9, atol=1e-12)
    assert any((adapted[name].threshold.std(1) > 0.01).any() for name in adapted), "nothing was adapting"


def test_frozen_at_no_adaptation_is_the_plain_network() -> None:
    network, x = talif_network(adaptation=0.0), images()
    assert torch.equal(frozen_at_mean_threshold(network, [x])(x), network(x))


@pytest.mark.parametrize("share", Share)
@pytest.mark.parametrize("rule", [None, bptt()], ids=["own rule", "bptt"])
def test_static_thresholds_start_where_they_were_and_learn(share: Share, rule: GradientRule | None) -> None:
    network, x = lif_network(), images()
    before = fingerprint(network)
    twin = static_thresholds(network, x[:1], share, rule)
    assert torch.equal(twin(x), network(x)) and fingerprint(network) == before
    twin(x).square().sum().backward()
    for name, layer in hidden_neurons(twin).items():
        assert isinstance(layer, ThresholdLIF) and layer.rule == (rule or hidden_neurons(network)[name].rule)
        assert layer.threshold.grad is not None and layer.threshold.grad.abs().max() > 0
        neurons = trajectories(network, x)[name].membrane.shape[2:]
        assert layer.threshold.shape == (1, *share.shape(neurons))


def test_a_users_own_network_gets_its_twins() -> None:
    network, x = own_network(), vectors(16)
    assert torch.equal(static_thresholds(network, x, rule=bptt())(x), network(x))
    adapting = homeostatic(network, calibrate(network, [x]), 0.3)
    assert frozen_at_mean_threshold(adapting, [x])(x).shape == (16, 3)


def test_firing_rates_are_spikes_per_neuron_and_step() -> None:
    network, x = lif_network(), images(10)
    for name, step in trajectories(network, x).items():
        parts: list[tuple[Tensor, ...]] = [(x[:3], x[:3]), (x[3:], x[3:])]
        for batches in ([x], parts):
            assert firing_rates(network, batches)[name] == pytest.approx(step.spikes.mean().item(), abs=1e-6)


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
def test_rate_matching_hits_its_target(tolerance: float) -> None:
    wide = LeNet(channels=(2, 3), hidden=64)
    plain, target, x = lif_network(wide), talif_network(wide, adaptation=0.6), images(24)
    before = fingerprint(plain), fingerprint(target)
    matched = rate_matched(plain, target, [x[:8], x[8:]], tolerance)
    assert (fingerprint(plain), fingerprint(target)) == before
    wanted, reached = firing_rates(target, [x]), firing_rates(matched.model, [x])
    assert {rate.layer for rate in matched.rates} == set(wanted)
    moved = 0.0
    for rate in matched.rates:
        assert rate.error < tolerance and abs(reached[rate.layer] / wanted[rate.layer] - 1) < tolerance
        assert rate.threshold > 0 and rate.achieved == pytest.approx(reached[rate.layer])
        moved = max(moved, abs(rate.before / rate.target - 1))
    assert moved > 2 * tolerance, "nothing had to be matched"


def test_a_layer_is_matched_on_what_earlier_layers_now_hand_on() -> None:
    """Also where the layers were not registered in the order in which they run."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = LIF(), LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(4 * self.first(x.transpose(0, 1).float())).mean(0)  # type: ignore[no-any-return]

    model, x = Backwards(), currents(8, 50, 20, seed=1)
    target = copy.deepcopy(model)
    for name, level in (("first", 0.6), ("second", 1.3)):
        setattr(target, name, ThresholdLIF(torch.full((1,), level), learn=False))
    matched = rate_matched(model, target, [x])
    assert [rate.layer for rate in matched.rates] == ["first", "second"]
    assert all(rate.error < 0.01 for rate in matched.rates)
    assert matched.rates[0].threshold == pytest.approx(0.6, abs=0.02)


def test_controls_refuse_what_they_cannot_work_on() -> None:
    plain, adapting, x = lif_network(), talif_network(), images()
    with pytest.raises(SignatureError, match="without TA-LIF layers"):
        without_adaptation(plain)
    with pytest.raises(SignatureError, match="without TA-LIF layers"):
        frozen_at_mean_threshold(plain, [x])
    with pytest.raises(SignatureError, match="no images"):
        frozen_at_mean_threshold(adapting, [])
    with pytest.raises(SignatureError, match="start from a LIF network"):
        static_thresholds(adapting, x)
    with pytest.raises(SignatureError, match="without adaptation"):
        rate_matched(adapting, plain, [x])
    static = static_thresholds(plain, x)
    with pytest.raises(SignatureError, match="start from a LIF network"):
        static_thresholds(static, x)
    with pytest.raises(ConfigError, match="would be lost"):
        homeostatic(static, calibrate(static, [x]))
    with pytest.raises(ConfigError, match="would not learn"):
        static_thresholds(plain, x, rule=GradientRule(threshold=False))
    loud = copy.deepcopy(plain)
    for layer_name in hidden_neurons(loud):
        parent, _, child = layer_name.rpartition(".")
        setattr(loud.get_submodule(parent), child, ThresholdLIF(torch.full((1,), -1e6), learn=False))
    with pytest.raises(ConfigError, match="cannot be brought to 1"):
        rate_matched(plain, loud, [x])


def test_images_go_to_where_the_network_lives() -> None:
    network = talif_network().to("meta")
    steps = ablations._mean(network, [images(), (images(3), None)], lambda step: step.threshold.sum(1))  # type: ignore[list-item]
    currents = ablations._currents(network, images())
    assert steps.keys() == currents.keys() == hidden_neurons(network).keys()
    assert {value.device.type for value in (*steps.values(), *currents.values())} == {"meta"}
