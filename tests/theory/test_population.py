"""Simulated populations against the pure steps and against the theory."""

import math

import pytest
import torch

from hosnn.errors import ConfigError
from hosnn.spiking.dynamics import lif_step, talif_step
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics, Reset, State
from hosnn.theory import Feedback, advance, operating_points, responding_rate, run, static_feedback
from hosnn.theory.population import LIF, resting_population
from hosnn.theory.study.feedback import _slopes


@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_advance_is_the_step_of_the_specification_to_the_bit(reset: Reset, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    dynamics = Dynamics(4.0, reset=reset)
    state = ours = plain = State(*(part.to(dtype) for part in resting_population(3, 50, dynamics)))
    adaptation = torch.rand(50, generator=generator).to(dtype)
    for _ in range(40):
        current = torch.randn(3, 50, generator=generator).to(dtype)
        signature = torch.randn(50, generator=generator).to(dtype)
        expected, state = talif_step(current, state, signature, adaptation, dynamics, bptt())
        step, ours = advance(current, ours, signature, Feedback(adaptation), dynamics)
        assert all(torch.equal(a, b) for a, b in zip((*step, *ours), (*expected, *state), strict=True))
        expected, after = lif_step(current, plain, dynamics, bptt())
        step, plain = advance(current, plain, signature, LIF, dynamics)
        assert all(torch.equal(a, b) for a, b in zip((*step, *plain), (*expected, *after), strict=True))


def test_leak_bounds_and_a_shared_error():
    dynamics = Dynamics(5.0)
    state = resting_population(1, 2, dynamics)._replace(threshold=torch.tensor([[3.0, 3.0]], dtype=torch.float64))
    current, target = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    thresholds = {
        name: advance(current, state, target, feedback, dynamics)[0].threshold[0].tolist()
        for name, feedback in {
            "leak": Feedback(0.1, retention=0.5),
            "bounds": Feedback(0.1, lowest=0.5, highest=3.15),
            "shared": Feedback(0.1, shared=True),
        }.items()
    }
    assert thresholds["leak"] == pytest.approx([2.1, 2.2])
    assert thresholds["bounds"] == pytest.approx([3.1, 3.15])
    assert thresholds["shared"] == pytest.approx([3.15, 3.15])


def points(reset: Reset, rate: float = 0.5, noise: float = 2.0, neurons: int = 400):
    generator = torch.Generator().manual_seed(1)
    return operating_points(
        torch.tensor([rate]), torch.tensor([noise]), Dynamics(5.0, reset=reset), neurons, 300, generator
    )


@pytest.mark.parametrize("reset", Reset)
def test_an_operating_point_fires_at_its_rate_and_obeys_the_balance_of_its_mean(reset: Reset):
    point = points(reset)
    assert float(point.rate) == pytest.approx(0.5, abs=0.02)
    if reset is Reset.SOFT:  # E[u] = a (E[u] - θ r) + μ
        assert float(point.signature) == pytest.approx(float((point.drive - 0.8 * point.rate) / 0.2), abs=0.05)
    width = math.sqrt(float(point.variance))
    gaussian = math.exp(-(((1 - float(point.signature)) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
    assert float(point.sensitivity) == pytest.approx(gaussian, rel=0.15)


@pytest.mark.parametrize("reset", Reset)
def test_measured_feedback_is_that_of_the_responding_rate(reset: Reset):
    point = points(reset)
    slopes = _slopes(point, 400, torch.Generator().manual_seed(2))[0]
    expected = static_feedback(responding_rate(5.0, float(point.rate), float(point.sensitivity), 0.0, reset))
    assert float(slopes.mean()) == pytest.approx(expected, abs=4 * float(slopes.std()) / 20 + 0.06)
    assert (expected < 0) == (reset is Reset.HARD)


@pytest.mark.parametrize(("k", "comes_back"), [(4.3, True), (4.7, False)])
def test_a_saturated_soft_neuron_has_the_boundary_of_the_frozen_rate(k: float, comes_back: bool):
    dynamics = Dynamics(5.0, reset=Reset.SOFT)
    drive = torch.full((1, 1), 2.0, dtype=torch.float64)
    state = resting_population(1, 1, dynamics)
    for _ in range(400):
        step, state = advance(drive, state, drive, LIF, dynamics)
    state = state._replace(threshold=state.threshold + 1e-3)
    shifts = [
        abs(float(after.threshold) - 1)
        for _, after in run(iter([drive] * 600), state, step.membrane, Feedback(k), dynamics)
    ]
    assert (max(shifts[-50:]) < 1e-6) == comes_back


def test_a_rate_that_cannot_be_set_is_named():
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        points(Reset.SOFT, rate=1.0)


def test_under_a_constant_current_a_higher_threshold_never_lowers_the_mean_membrane_of_a_hard_reset():
    dynamics = Dynamics(5.0)
    drive = torch.full((1, 200), 0.5, dtype=torch.float64)
    state = resting_population(1, 200, dynamics)
    state = state._replace(threshold=torch.linspace(0.1, 2.2, 200, dtype=torch.float64)[None])
    steps = 2520  # divisible by every period up to 10
    total = torch.zeros_like(drive)
    for step, _ in run(iter([drive] * steps), state, drive, LIF, dynamics):
        total += step.membrane
    assert bool((total.diff() > -1e-6).all()) and float(total.diff().max()) > 1
