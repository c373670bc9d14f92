"""Prescribed spikes: regular and random timing."""

import numpy as np
import pytest

from hosnn.errors import ConfigError
from hosnn.theory import frozen_rate, random_boundary, random_radius, regular_boundary, regular_cycle


@pytest.mark.parametrize("period", [1, 2, 3, 7])
def test_a_pole_of_the_cycle_is_minus_one_at_the_boundary(period: int):
    cycle = regular_cycle(5.0, regular_boundary(5.0, period), period)
    assert np.abs(np.linalg.eigvals(cycle) + 1).min() < 1e-9
    assert np.linalg.det(cycle) == pytest.approx(0.8**period)


def test_a_spike_at_every_step_is_the_frozen_rate_of_one():
    interval = frozen_rate(5.0, 1.0, 1.0).stable_adaptation
    assert interval is not None
    assert regular_boundary(5.0, 1) == pytest.approx(interval[1]) == pytest.approx(random_boundary(5.0, 1.0))


def test_rare_spikes_lower_the_boundary_towards_two_over_tau_minus_one():
    bounds = [regular_boundary(5.0, period) for period in (1, 2, 4, 8, 100)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(2 / 4)


def test_random_spikes_follow_the_frozen_rate_in_the_mean_and_the_second_moment_by_the_kronecker_matrix():
    rng = np.random.default_rng(0)
    k, rate, steps, neurons = 0.2, 0.5, 30, 200_000
    error, shift = np.ones(neurons), np.full(neurons, k)
    for _ in range(steps):
        spikes = rng.random(neurons) < rate
        error = 0.8 * (error - spikes * shift)
        shift = shift + k * error
    impulse = np.zeros(steps + 1)
    impulse[0] = 1
    expected, _ = frozen_rate(5.0, rate, k).respond(impulse)
    assert error.mean() == pytest.approx(expected[-1], abs=4 * error.std() / neurons**0.5)
    assert random_radius(5.0, 0.99 * random_boundary(5.0, rate), rate) < 1 < random_radius(5.0, 0.92, rate)


def test_nonsense_is_named():
    with pytest.raises(ConfigError, match="more than 1"):
        regular_boundary(1.0, 2)
