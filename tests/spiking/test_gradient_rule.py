"""Both gradients of a TA-LIF layer against an independent float64 recursion, every path and every surrogate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hosnn.spiking.dynamics import resting, talif_step
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.kernels import eager
from hosnn.spiking.state import AdaptiveThreshold, Dynamics, Reset, Step, threshold_tensors
from hosnn.spiking.surrogate import SURROGATES, Sigmoid, Surrogate
from tests.spiking.reference import SHAPES, Neuron, backward, forward, logistic_bump, tssl_backward
from tests.spiking.test_dynamics import RESETS, SIZES, Case, case

PATHS = ("leak", "reset", "threshold")
CUTS = [{path: path not in cut for path in PATHS} for cut in ((), *((path,) for path in PATHS), PATHS[:2], PATHS[1:])]


def gradients(
    inputs: Case, rule: GradientRule, dynamics: Dynamics, upstream: Tensor, adaptation: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """dL/dI and dL/dk of L = sum(upstream · traces) through the layer."""
    currents = inputs.currents.clone().requires_grad_()
    k = (inputs.adaptation if adaptation is None else adaptation).clone().requires_grad_()
    traces = eager.traces(currents, dynamics, rule, AdaptiveThreshold(inputs.signature, k))
    first, second = torch.autograd.grad((traces * upstream).sum(), (currents, k), allow_unused=True)
    return first, second


def through_the_step(
    inputs: Case, rule: GradientRule, dynamics: Dynamics, upstream: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The same by torch autograd through the pure step, streamed."""
    currents, k = inputs.currents.clone().requires_grad_(), inputs.adaptation.clone().requires_grad_()
    state, loss = resting(currents[0], dynamics), torch.zeros((), dtype=torch.float64)
    for t, current in enumerate(currents.unbind(0)):
        step, state = talif_step(current, state, inputs.signature[t], k, dynamics, rule)
        loss = loss + (step.trace * upstream[t]).sum()
    first, second = torch.autograd.grad(loss, (currents, k), allow_unused=True)
    return first, second


def upstream_for(inputs: Case, seed: int) -> Tensor:
    return torch.randn(inputs.currents.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arrays(inputs: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return inputs.currents.numpy(), inputs.signature.numpy(), inputs.adaptation.numpy()


def close(got: Tensor | None, expected: np.ndarray) -> None:
    assert got is not None
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "+".join(path for path in PATHS if cut[path]))
@RESETS
def test_bptt_and_its_cuts_equal_the_recursion_derived_by_hand(
    surrogate: type[Surrogate], cut: dict[str, bool], reset: Reset
) -> None:
    inputs = case(11, 5, 3, 6)
    upstream = upstream_for(inputs, 12)
    neuron = Neuron(soft_reset=reset is Reset.SOFT)
    for at_rest in (False, True):
        rule = GradientRule(surrogate(), **cut, at_resting_threshold=at_rest)
        got = gradients(inputs, rule, Dynamics(reset=reset), upstream)
        currents, signature, k = arrays(inputs)
        expected = backward(
            forward(currents, signature, k, neuron),
            upstream.numpy(),
            signature,
            k,
            neuron,
            SHAPES[surrogate.__name__],
            **cut,
            at_resting_threshold=at_rest,
        )
        close(got[0], expected[0])
        if cut["threshold"]:
            close(got[1], expected[1])
        else:
            assert got[1] is None, "a cut threshold must give k no gradient"


@given(**SIZES, reset=st.sampled_from(Reset), tau_membrane=st.floats(1, 20), tau_synapse=st.floats(1, 20))
@settings(max_examples=40, deadline=None)
def test_bptt_equals_the_recursion_for_any_shape(
    seed: int, steps: int, batch: int, neurons: int, reset: Reset, tau_membrane: float, tau_synapse: float
) -> None:
    inputs = case(seed, steps, batch, neurons)
    upstream = upstream_for(inputs, seed + 1)
    neuron = Neuron(tau_membrane, tau_synapse, soft_reset=reset is Reset.SOFT)
    got = gradients(inputs, bptt(Sigmoid(0.5)), Dynamics(tau_membrane, tau_synapse, reset=reset), upstream)
    currents, signature, k = arrays(inputs)
    run = forward(currents, signature, k, neuron)
    expected = backward(run, upstream.numpy(), signature, k, neuron, lambda x: logistic_bump(x, 0.5))
    close(got[0], expected[0])
    close(got[1], expected[1])


@given(**SIZES, reset=st.sampled_from(Reset))
@settings(max_examples=40, deadline=None)
def test_tssl_bp_equals_the_formula_of_the_reference(
    seed: int, steps: int, batch: int, neurons: int, reset: Reset
) -> None:
    inputs = case(seed, steps, batch, neurons)
    upstream = upstream_for(inputs, seed + 1)
    neuron = Neuron(soft_reset=reset is Reset.SOFT)
    got = gradients(inputs, tssl_bp(), Dynamics(reset=reset), upstream)
    currents, signature, k = arrays(inputs)
    expected = tssl_backward(forward(currents, signature, k, neuron), upstream.numpy(), signature, neuron)
    close(got[0], expected[0])
    close(got[1], expected[1])


@pytest.mark.parametrize("current", [-30.0, -0.61, 0.0, 1.0, 2.61, 30.0])
def test_tssl_bp_clamps_far_from_the_threshold_and_never_vanishes(current: float) -> None:
    """One step, one neuron, by hand: dI = g/τ_s σ'(z)/0.2 with z = (I - 1)/0.2 clamped to ±8."""
    inputs = Case(torch.full((1, 1, 1), current).double(), torch.zeros(1, 1).double(), torch.zeros(1).double())
    (got, _) = gradients(inputs, tssl_bp(), Dynamics(), torch.ones(1, 1, 1).double())
    z = min(8.0, abs(current - 1) / 0.2)
    sigma = 1 / (1 + np.exp(-z))
    assert got.item() == pytest.approx(sigma * (1 - sigma) / 0.2 / 3, rel=1e-12)
    assert got.item() > 5e-4


def test_tssl_bp_ignores_the_adapted_threshold() -> None:
    """Where the signature pulls θ far away, the surrogate is still evaluated at u - 1."""
    inputs = case(13, 1, 2, 5)
    moved = inputs._replace(signature=inputs.signature - 100)
    upstream = upstream_for(inputs, 14)
    assert torch.equal(
        gradients(inputs, tssl_bp(), Dynamics(), upstream)[0], gradients(moved, tssl_bp(), Dynamics(), upstream)[0]
    )


SHARED = {"neuron": (3, 2, 2), "channel": (3, 1, 1), "layer": ()}


@pytest.mark.parametrize("shape", SHARED.values(), ids=SHARED)
def test_a_shared_adaptation_gets_the_sum_over_its_neurons(shape: tuple[int, ...]) -> None:
    """k per channel or layer: its gradient is the sum of the per-neuron gradients, under every rule for k."""
    rng = torch.Generator().manual_seed(15)
    inputs = Case(
        torch.randn(5, 2, 3, 2, 2, generator=rng, dtype=torch.float64) + 0.5,
        torch.randn(5, 3, 2, 2, generator=rng, dtype=torch.float64),
        torch.full((3, 2, 2), 0.3, dtype=torch.float64),
    )
    upstream = upstream_for(inputs, 16)
    for rule in (tssl_bp(), bptt()):
        _, each = gradients(inputs, rule, Dynamics(), upstream)
        _, shared = gradients(inputs, rule, Dynamics(), upstream, torch.full(shape, 0.3, dtype=torch.float64))
        assert each is not None and shared is not None
        torch.testing.assert_close(shared, each.sum_to_size(shape), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("surrogate", [kind() for kind in SURROGATES], ids=repr)
@pytest.mark.parametrize("at_rest", [False, True], ids=["at θ", "at rest"])
@RESETS
def test_the_closed_form_of_local_rules_equals_autograd_through_the_step(
    surrogate: Surrogate, at_rest: bool, reset: Reset
) -> None:
    inputs = case(17, 6, 3, 7)
    upstream = upstream_for(inputs, 18)
    rule = GradientRule(surrogate, leak=False, reset=False, threshold=False, at_resting_threshold=at_rest)
    assert rule.is_local_in_time
    got, no_adaptation_gradient = gradients(inputs, rule, Dynamics(reset=reset), upstream)
    expected, _ = through_the_step(inputs, rule, Dynamics(reset=reset), upstream)
    close(got, expected.numpy())
    assert no_adaptation_gradient is None, "k gets a gradient only if the rule says local_adaptation"


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "+".join(path for path in PATHS if cut[path]))
@RESETS
def test_the_unrolled_gradient_equals_autograd_through_the_step(cut: dict[str, bool], reset: Reset) -> None:
    inputs = case(19, 6, 3, 7)
    upstream = upstream_for(inputs, 20)
    rule = GradientRule(bptt().surrogate, **cut)
    for mine, streamed in zip(
        gradients(inputs, rule, Dynamics(reset=reset), upstream),
        through_the_step(inputs, rule, Dynamics(reset=reset), upstream),
        strict=True,
    ):
        assert (mine is None) == (streamed is None)
        if mine is not None and streamed is not None:
            close(mine, streamed.numpy())


@RESETS
def test_plain_lif_has_the_gradient_of_talif_without_adaptation(reset: Reset) -> None:
    inputs = case(21, 5, 3, 7)
    still = inputs._replace(adaptation=torch.zeros(7).double())
    upstream = upstream_for(inputs, 22)
    for rule in (bptt(), tssl_bp(), replace(bptt(), threshold=False)):
        currents = inputs.currents.clone().requires_grad_()
        (plain,) = torch.autograd.grad(
            (eager.traces(currents, Dynamics(reset=reset), rule) * upstream).sum(), (currents,)
        )
        torch.testing.assert_close(plain, gradients(still, rule, Dynamics(reset=reset), upstream)[0])


def test_float32_gradients_agree_with_float64() -> None:
    inputs = case(23, 5, 4, 20)
    upstream = upstream_for(inputs, 24)
    narrow = Case(*(tensor.float() for tensor in inputs))
    run = eager.trajectory(inputs.currents, Dynamics(), bptt(), AdaptiveThreshold(inputs.signature, inputs.adaptation))
    assert ((run.membrane - run.threshold).abs() > 1e-4).all(), "inputs must be clear of the threshold"
    for rule in (bptt(), tssl_bp()):
        for wide, short in zip(
            gradients(inputs, rule, Dynamics(), upstream),
            gradients(narrow, rule, Dynamics(), upstream.float()),
            strict=True,
        ):
            assert wide is not None and short is not None
            assert (wide - short).abs().max() <= 1e-5 * wide.abs().max()


def linearised(inputs: Case, currents: np.ndarray, run: Step, rule: GradientRule, dynamics: Dynamics) -> np.ndarray:
    """Traces [T, B, N] of a neuron whose spikes are straight lines of slope h around `run`, whose cut paths are held.

    It is a polynomial of the currents, so that finite differences of it say what a rule's gradient must be.
    """
    u0, theta0, s0 = (part.numpy() for part in run[:3])
    v, theta, trace = np.zeros_like(u0[0]), np.full_like(u0[0], dynamics.threshold), np.zeros_like(u0[0])
    traces = []
    for t in range(len(currents)):
        u = dynamics.membrane_decay * v + currents[t]
        theta = theta + inputs.adaptation.numpy() * (u - inputs.signature[t].numpy())
        if not rule.threshold:
            theta = theta0[t]
        at = u0[t] - (dynamics.threshold if rule.at_resting_threshold else theta0[t])
        slope = rule.surrogate.derivative(torch.from_numpy(at)).numpy()
        s = s0[t] + slope * ((u - theta) - (u0[t] - theta0[t]))
        carried = u if rule.leak else u0[t]
        if dynamics.reset is Reset.HARD:
            v = carried * (1 - (s if rule.reset else s0[t]))
        else:
            v = carried - (theta * s if rule.reset else theta0[t] * s0[t])
        trace = dynamics.synaptic_decay * trace + s / dynamics.tau_synapse
        traces.append(trace)
    return np.stack(traces)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "+".join(path for path in PATHS if cut[path]))
@pytest.mark.parametrize("at_rest", [False, True], ids=["at θ", "at rest"])
@RESETS
def test_a_cut_rule_is_the_finite_difference_of_what_remains(cut: dict[str, bool], at_rest: bool, reset: Reset) -> None:
    inputs, dynamics = case(25, 4, 1, 3), Dynamics(reset=reset)
    rule = GradientRule(Sigmoid(0.5), **cut, at_resting_threshold=at_rest)
    run = eager.trajectory(inputs.currents, dynamics, rule, AdaptiveThreshold(inputs.signature, inputs.adaptation))
    upstream = upstream_for(inputs, 26)
    currents = inputs.currents.numpy()
    differences = np.empty_like(currents)
    for at in np.ndindex(currents.shape):
        moved = []
        for sign in (1, -1):
            other = currents.copy()
            other[at] += sign * 1e-4
            moved.append((linearised(inputs, other, run, rule, dynamics) * upstream.numpy()).sum())
        differences[at] = (moved[0] - moved[1]) / 2e-4
    found, _ = gradients(inputs, rule, dynamics, upstream)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), differences, rtol=1e-5, atol=1e-7)


class Alternating(GradientRule):
    """Wide at even steps, narrow at odd ones."""

    def at(self, step: int) -> GradientRule:
        return bptt(Sigmoid(1.0 if step % 2 == 0 else 0.1))


def test_a_rule_may_differ_from_step_to_step() -> None:
    inputs = case(27, 4, 2, 5)
    upstream = upstream_for(inputs, 28)
    found, _ = gradients(inputs, Alternating(), Dynamics(), upstream)
    currents, loss = inputs.currents.clone().requires_grad_(), torch.zeros((), dtype=torch.float64)
    state = resting(currents[0], Dynamics())
    for t, current in enumerate(currents.unbind(0)):
        rule = bptt(Sigmoid((1.0, 0.1)[t % 2]))
        step, state = talif_step(current, state, inputs.signature[t], inputs.adaptation, Dynamics(), rule)
        loss = loss + (step.trace * upstream[t]).sum()
    (expected,) = torch.autograd.grad(loss, currents)
    close(found, expected.numpy())


@pytest.mark.parametrize("rule", [bptt(), tssl_bp(), GradientRule(leak=False)], ids=["bptt", "tssl-bp", "leak cut"])
@RESETS
def test_being_recorded_changes_neither_bits_nor_gradients(rule: GradientRule, reset: Reset) -> None:
    inputs, dynamics = case(29, 5, 3, 6), Dynamics(reset=reset)
    upstream = upstream_for(inputs, 30)
    expected, _ = gradients(inputs, rule, dynamics, upstream)
    with eager.record_layers() as records:
        found, _ = gradients(inputs, rule, dynamics, upstream)
        spikes = eager.spikes(inputs.currents, dynamics, rule)
    assert expected is not None
    close(found, expected.numpy())
    adaptive = AdaptiveThreshold(inputs.signature, inputs.adaptation)
    for record, threshold in zip(records, (adaptive, None), strict=True):
        run = eager.trajectory(inputs.currents, dynamics, rule, threshold)
        assert all(torch.equal(recorded, expected) for recorded, expected in zip(record.trajectory, run, strict=True))
        assert record.dynamics == dynamics
        assert threshold_tensors(record.threshold)[0] is threshold_tensors(threshold)[0]
    assert torch.equal(records[0].trajectory.trace, eager.traces(inputs.currents, dynamics, rule, adaptive))
    assert torch.equal(records[1].trajectory.spikes, spikes)
    assert torch.equal(spikes, eager.spikes(inputs.currents, dynamics, rule))
    assert len(records) == 2, "what runs later is not recorded"
