"""Bounds that hold for every spiking neuron, searched for violations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hosnn.errors import ConfigError
from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory import Feedback, advance, membrane_bound, threshold_bound
from hosnn.theory.population import resting_population


@settings(max_examples=60, deadline=None)
@given(
    reset=st.sampled_from(Reset),
    tau=st.floats(1.0, 20.0),
    k=st.floats(0.0, 20.0),
    retention=st.sampled_from([1.0, 0.9, 0.0]),
    size=st.floats(0.0, 5.0),
    signature=st.floats(-3.0, 3.0),
    seed=st.integers(0, 1000),
)
def test_no_bounded_current_drives_the_membrane_beyond_its_bound(reset, tau, k, retention, size, signature, seed):
    dynamics = Dynamics(tau, reset=reset)
    generator = torch.Generator().manual_seed(seed)
    # Half of the neurons get one of the two extremes at each step, the others anything between, in slow waves.
    extreme = size * torch.randn(200, 1, 16, generator=generator, dtype=torch.float64).sign()
    waves = size * torch.sin(torch.rand(16, generator=generator) * torch.arange(200)[:, None, None]).double()
    currents = torch.cat([extreme, waves.expand(200, 1, 16)], 2)
    state = resting_population(1, 32, dynamics)
    target = torch.tensor(signature, dtype=torch.float64)
    membrane = membrane_bound(dynamics, size, abs(signature), k)
    threshold = threshold_bound(dynamics, size, abs(signature), k, retention)
    for current in currents:
        step, state = advance(current, state, target, Feedback(k, retention), dynamics)
        assert float(step.membrane.abs().max()) <= membrane * (1 + 1e-9) + 1e-9
        assert float((step.threshold - 1).abs().max()) <= threshold * (1 + 1e-9) + 1e-9


def test_without_a_leak_a_bounded_current_drives_the_threshold_without_bound():
    dynamics = Dynamics(5.0)
    state, half = resting_population(1, 1, dynamics), torch.full((1, 1), 0.1, dtype=torch.float64)
    for _ in range(4000):
        _, state = advance(half, state, torch.tensor(0.0), Feedback(0.2), dynamics)
    assert float(state.threshold) == pytest.approx(0.2 * 0.5 * 4000, rel=0.01)
    assert threshold_bound(dynamics, 0.1, 0.0, 0.2) == math.inf


def test_a_hard_reset_and_lif_have_the_bound_of_the_membrane_alone():
    assert membrane_bound(Dynamics(5.0), 2.0, 1.0, 0.5) == 10
    assert membrane_bound(Dynamics(5.0, reset=Reset.SOFT), 2.0, 1.0, 0.0) == 10
    assert threshold_bound(Dynamics(5.0), 2.0, 1.0, 0.0) == 0


def test_negative_sizes_are_named():
    with pytest.raises(ConfigError, match="none below 0"):
        membrane_bound(Dynamics(), -1.0, 0.0, 0.2)


@pytest.mark.parametrize("current", [0.0, 1.0])
@pytest.mark.parametrize("reset", Reset)
def test_without_a_leak_there_is_no_bound(current: float, reset: Reset) -> None:
    assert membrane_bound(Dynamics(math.inf, reset=reset), current, 0.5, 0.1) == math.inf
