"""TA-LIF forward: equal to the equations, a function of its input, and LIF where nothing adapts."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.spiking.dynamics import lif_step, resting, talif_step
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.kernels import eager
from hosnn.spiking.state import AdaptiveThreshold, Dynamics, Reset
from hosnn.spiking.surrogate import SURROGATES
from tests.spiking.reference import Neuron, forward

RULES = {
    "bptt": bptt(),
    "tssl-bp": tssl_bp(),
    "no leak": GradientRule(leak=False),
    "no reset": GradientRule(reset=False),
    "no threshold": GradientRule(threshold=False),
    "local": GradientRule(leak=False, reset=False, threshold=False),
    "at rest": GradientRule(at_resting_threshold=True),
    **{kind.__name__: bptt(kind()) for kind in SURROGATES},
}
RESETS = pytest.mark.parametrize("reset", Reset)


class Case(NamedTuple):
    currents: Tensor  # [T, B, N]
    signature: Tensor  # [T, N]
    adaptation: Tensor  # [N]


def case(seed: int, steps: int, batch: int, neurons: int, dtype: torch.dtype = torch.float64) -> Case:
    rng = torch.Generator().manual_seed(seed)
    return Case(
        (0.5 + torch.randn(steps, batch, neurons, generator=rng, dtype=torch.float64)).to(dtype),
        torch.randn(steps, neurons, generator=rng, dtype=torch.float64).to(dtype),
        torch.rand(neurons, generator=rng, dtype=torch.float64).to(dtype),
    )


SIZES = {
    "seed": st.integers(0, 2**31),
    "steps": st.integers(1, 7),
    "batch": st.integers(1, 3),
    "neurons": st.integers(1, 4),
}


@given(**SIZES, reset=st.sampled_from(Reset), tau_membrane=st.floats(1, 20), tau_synapse=st.floats(1, 20))
@settings(max_examples=40, deadline=None)
def test_forward_equals_the_equations(
    seed: int, steps: int, batch: int, neurons: int, reset: Reset, tau_membrane: float, tau_synapse: float
) -> None:
    currents, signature, adaptation = case(seed, steps, batch, neurons)
    got = eager.trajectory(
        currents, Dynamics(tau_membrane, tau_synapse, reset=reset), bptt(), AdaptiveThreshold(signature, adaptation)
    )
    expected = forward(
        currents.numpy(),
        signature.numpy(),
        adaptation.numpy(),
        Neuron(tau_membrane, tau_synapse, soft_reset=reset is Reset.SOFT),
    )
    np.testing.assert_array_equal(got.spikes.numpy(), expected.spikes)
    for name in ("membrane", "threshold", "trace"):
        np.testing.assert_allclose(getattr(got, name).numpy(), getattr(expected, name), rtol=1e-12, atol=1e-12)


@RESETS
def test_one_worked_example(reset: Reset) -> None:
    """τ_m = 5, τ_s = 3, k = 0.5, u* = 1, I = 2 twice; by hand."""
    currents, signature = torch.tensor([[[2.0]], [[2.0]]]).double(), torch.ones(2, 1).double()
    run = eager.trajectory(
        currents, Dynamics(reset=reset), bptt(), AdaptiveThreshold(signature, torch.tensor(0.5).double())
    )
    second = {Reset.HARD: (2.0, 2.0, 0.0, 2 / 9), Reset.SOFT: (2.4, 2.2, 1.0, 5 / 9)}[reset]
    expected = torch.tensor([(2.0, 1.5, 1.0, 1 / 3), second], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(run)[:, :, 0, 0].T, expected)


@RESETS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_adaptation_it_is_lif_bit_for_bit(reset: Reset, dtype: torch.dtype) -> None:
    currents, signature, _ = case(0, 6, 4, 50, dtype)
    dynamics = Dynamics(reset=reset)
    plain = eager.trajectory(currents, dynamics, bptt())
    adapting = eager.trajectory(currents, dynamics, bptt(), AdaptiveThreshold(signature, torch.zeros(50, dtype=dtype)))
    for name, mine, other in zip(plain._fields, plain, adapting, strict=True):
        assert torch.equal(mine, other), name


@RESETS
def test_spikes_are_zero_or_one(reset: Reset) -> None:
    spikes = eager.trajectory(*_arguments(case(1, 6, 5, 40), reset)).spikes
    assert set(spikes.flatten().tolist()) == {0.0, 1.0}


@RESETS
def test_a_membrane_exactly_at_the_threshold_does_not_fire(reset: Reset) -> None:
    currents = torch.ones(1, 1, 1)
    assert eager.trajectory(currents, Dynamics(reset=reset), bptt()).spikes.item() == 0
    assert eager.trajectory(currents + 1e-6, Dynamics(reset=reset), bptt()).spikes.item() == 1


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@RESETS
def test_a_gradient_rule_leaves_the_forward_bit_identical(rule: GradientRule, reset: Reset) -> None:
    currents, signature, adaptation = case(2, 5, 4, 30, torch.float32)
    dynamics = Dynamics(reset=reset)
    expected = eager.trajectory(currents, dynamics, bptt(), AdaptiveThreshold(signature, adaptation))
    for requires_grad in (False, True):
        inputs = currents.clone().requires_grad_(requires_grad)
        got = eager.trajectory(inputs, dynamics, rule, AdaptiveThreshold(signature, adaptation))
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert torch.equal(
            eager.traces(inputs, dynamics, rule, AdaptiveThreshold(signature, adaptation)), expected.trace
        )


@RESETS
@pytest.mark.parametrize("rule", [bptt(), tssl_bp()], ids=["bptt", "tssl-bp"])
def test_streaming_the_steps_equals_the_unrolled_form(reset: Reset, rule: GradientRule) -> None:
    currents, signature, adaptation = case(3, 6, 4, 30, torch.float32)
    dynamics = Dynamics(reset=reset)
    for adapting in (False, True):
        state, streamed = resting(currents[0], dynamics), []
        for current, target in zip(currents, signature, strict=True):
            if adapting:
                step, state = talif_step(current, state, target, adaptation, dynamics, rule)
            else:
                step, state = lif_step(current, state, dynamics, rule)
            streamed.append(step)
        unrolled = eager.trajectory(
            currents, dynamics, rule, AdaptiveThreshold(signature, adaptation) if adapting else None
        )
        for name in unrolled._fields:
            assert torch.equal(getattr(unrolled, name), torch.stack([getattr(step, name) for step in streamed])), name


def test_calling_twice_gives_the_same_bits() -> None:
    arguments = _arguments(case(4, 5, 4, 30, torch.float32), Reset.SOFT)
    assert torch.equal(eager.traces(*arguments), eager.traces(*arguments))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    currents, signature, adaptation = case(5, 5, 6, 30, torch.float32)
    whole = eager.traces(currents, Dynamics(), tssl_bp(), AdaptiveThreshold(signature, adaptation))
    alone = eager.traces(currents[:, 3:4], Dynamics(), tssl_bp(), AdaptiveThreshold(signature, adaptation))
    assert torch.equal(whole[:, 3:4], alone)


@pytest.mark.parametrize("wrong", [0.5, 0, -3, float("nan")])
def test_time_constants_below_one_step_are_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="tau_membrane"):
        Dynamics(tau_membrane=wrong)
    with pytest.raises(ConfigError, match="tau_synapse"):
        Dynamics(tau_synapse=wrong)


def test_a_membrane_may_not_leak_at_all_but_a_synapse_must():
    assert Dynamics(tau_membrane=float("inf")).membrane_decay == 1
    with pytest.raises(ConfigError, match="tau_synapse"):
        Dynamics(tau_synapse=float("inf"))


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_a_resting_threshold_that_is_not_positive_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        Dynamics(threshold=wrong)


def _arguments(inputs: Case, reset: Reset) -> tuple[Tensor, Dynamics, GradientRule, AdaptiveThreshold]:
    return inputs.currents, Dynamics(reset=reset), bptt(), AdaptiveThreshold(inputs.signature, inputs.adaptation)
