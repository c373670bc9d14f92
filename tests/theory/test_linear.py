"""Laws of the linear error dynamics."""

import cmath
import math

import numpy as np
import pytest

from hosnn.errors import ConfigError
from hosnn.spiking.state import Reset
from hosnn.theory import (
    ContinuousDynamics,
    Disturbance,
    ErrorDynamics,
    frozen_rate,
    lif_mean_square,
    limit,
    mean_square,
    responding_rate,
    static_feedback,
    wiener_slope,
)

CASES = [
    frozen_rate(5.0, 0.5, 0.2),
    frozen_rate(5.0, 1.0, 0.01),
    frozen_rate(20.0, 0.3, 0.7, retention=0.9),
    frozen_rate(5.0, 0.5, 0.2, Reset.HARD, 0.8),
    responding_rate(5.0, 0.5, 0.2, 0.3),
    responding_rate(5.0, 0.5, 0.9, 0.02, retention=0.5),
    responding_rate(5.0, 0.5, 0.4, -0.3, Reset.HARD),
]
EVERY = pytest.mark.parametrize("dynamics", CASES, ids=str)


def test_the_soft_frozen_rate_has_the_polynomial_of_the_derivation():
    dynamics = frozen_rate(5.0, 0.5, 0.2)
    a, r, k = 0.8, 0.5, 0.2
    assert dynamics.trace == pytest.approx(1 + a - a * r * k)
    assert dynamics.determinant == pytest.approx(a)
    np.testing.assert_allclose(np.poly(dynamics.matrix), [1, -dynamics.trace, dynamics.determinant])


def test_bounds_at_rate_one_and_tau_five():
    dynamics = frozen_rate(5.0, 1.0, 1.0)
    assert dynamics.stable_adaptation == pytest.approx((0.0, 4.5))
    assert dynamics.overdamped_adaptation[0] == pytest.approx((1 - math.sqrt(0.8)) ** 2 / 0.8)


@EVERY
def test_poles_are_eigenvalues_of_the_state_matrix(dynamics: ErrorDynamics):
    expected = sorted(np.linalg.eigvals(dynamics.matrix), key=lambda z: (z.real, z.imag))
    np.testing.assert_allclose(sorted(dynamics.poles, key=lambda z: (z.real, z.imag)), expected, atol=1e-12)


@EVERY
def test_a_pole_lies_on_the_unit_circle_at_each_end_of_the_stable_interval(dynamics: ErrorDynamics):
    interval = dynamics.stable_adaptation
    if interval is None or math.isinf(interval[0]):
        assert dynamics.coupling == 0
        return
    for end, inside in ((interval[0], 1), (interval[1], -1)):
        assert abs(dynamics.with_adaptation(end).poles[0]) == pytest.approx(1, abs=1e-9)
        step = 1e-3 * (interval[1] - interval[0])
        assert dynamics.with_adaptation(end + inside * step).is_stable
        assert not dynamics.with_adaptation(end - inside * step).is_stable


@EVERY
def test_stable_is_what_the_poles_say(dynamics: ErrorDynamics):
    for k in np.linspace(-3, 12, 61):
        other = dynamics.with_adaptation(float(k))
        if abs(abs(other.poles[0]) - 1) > 1e-9:
            assert other.is_stable == (abs(other.poles[0]) < 1)


def test_complex_poles_lie_at_the_same_radius_whatever_k():
    for k in (0.1, 0.2, 2 / 3, 3.0):
        assert abs(frozen_rate(5.0, 0.5, k).poles[0]) == pytest.approx(math.sqrt(0.8))


def test_overdamped_is_on_the_low_side_of_its_bound():
    bound, alternating = frozen_rate(5.0, 0.5, 1.0).overdamped_adaptation
    assert frozen_rate(5.0, 0.5, 0.99 * bound).is_overdamped and frozen_rate(5.0, 0.5, 0.99 * bound).damping_ratio > 1
    assert not frozen_rate(5.0, 0.5, 1.01 * bound).is_overdamped
    beyond = frozen_rate(5.0, 0.5, 1.001 * alternating)
    assert beyond.is_stable and not beyond.is_overdamped and max(pole.real for pole in beyond.poles) < 0


@EVERY
def test_the_gain_is_where_the_step_response_settles(dynamics: ErrorDynamics):
    if math.isinf(dynamics.gain):
        assert not dynamics.is_stable
        return
    assert dynamics.step_response(20_000)[-1] == pytest.approx(dynamics.gain, abs=1e-9)
    assert dynamics.transfer(1 + 1e-9).real == pytest.approx(dynamics.gain, abs=1e-6)


def test_the_transfer_function_is_the_response_to_a_sine():
    dynamics, steps = frozen_rate(5.0, 0.5, 0.2), np.arange(4000)
    wave = np.exp(0.3j * steps)
    real, imaginary = dynamics.respond(wave.real)[0], dynamics.respond(wave.imag)[0]
    expected = dynamics.transfer(cmath.exp(0.3j))
    assert (real[-1] + 1j * imaginary[-1]) / wave[-1] == pytest.approx(expected, abs=1e-9)


def test_a_ramp_leaves_a_constant_error_of_one_over_the_loop_gain():
    dynamics = frozen_rate(5.0, 0.5, 0.2)
    error, _ = dynamics.respond(np.arange(1.0, 3001.0))
    assert error[-1] == pytest.approx(1 / dynamics.loop_gain)


def test_the_impulse_response_has_the_closed_form_of_its_poles():
    dynamics = frozen_rate(5.0, 0.5, 0.2, retention=0.9)
    impulse = np.zeros(50)
    impulse[0] = 1
    first, second = dynamics.poles
    t = np.arange(50)
    closed = ((first - 0.9) * first**t - (second - 0.9) * second**t) / (first - second)
    np.testing.assert_allclose(dynamics.respond(impulse)[0], closed.real, atol=1e-12)


@EVERY
@pytest.mark.parametrize("disturbance", Disturbance)
def test_the_covariance_recursion_is_monte_carlo_within_four_standard_errors(
    dynamics: ErrorDynamics, disturbance: Disturbance
):
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((40, 4000))
    drawn = {
        Disturbance.CONSTANT: np.full((40, 4000), 0.1),
        Disturbance.WHITE: noise,
        Disturbance.WIENER: noise.cumsum(0),
    }[disturbance]
    squares = dynamics.respond(drawn)[0] ** 2
    expected = mean_square(dynamics, disturbance, 0.1, 40)
    error = squares.std(1) / math.sqrt(4000) + 1e-12
    assert (abs(squares.mean(1) - expected) < 4 * error).all()


@EVERY
@pytest.mark.parametrize("disturbance", Disturbance)
def test_closed_forms_are_limits_of_the_recursion(dynamics: ErrorDynamics, disturbance: Disturbance):
    curve = mean_square(dynamics, disturbance, 0.1, 5000)
    closed = limit(dynamics, disturbance, 0.1)
    if math.isfinite(closed):
        assert curve[-1] == pytest.approx(closed, rel=1e-6, abs=1e-12)
    elif disturbance is Disturbance.WIENER and math.isfinite(dynamics.gain):
        assert curve[-1] - curve[-2] == pytest.approx(wiener_slope(dynamics, 0.1), rel=1e-6)


@pytest.mark.parametrize("disturbance", Disturbance)
def test_lif_has_a_closed_form_at_every_step(disturbance: Disturbance):
    dynamics = frozen_rate(5.0, 0.5, 0.0)
    np.testing.assert_allclose(
        mean_square(dynamics, disturbance, 0.3, 60), lif_mean_square(0.8, disturbance, 0.3, 60), rtol=1e-9
    )


def test_white_noise_is_never_reduced_in_the_long_run_but_is_at_first():
    lif, talif = (frozen_rate(5.0, 0.5, k) for k in (0.0, 0.2))
    ratio = limit(talif, Disturbance.WHITE, 1.0) / limit(lif, Disturbance.WHITE, 1.0)
    assert ratio == pytest.approx(1 / (1 - talif.loop_gain / (2 * 1.8)))
    assert mean_square(talif, Disturbance.WHITE, 1.0, 5)[-1] < mean_square(lif, Disturbance.WHITE, 1.0, 5)[-1]


def test_continuous_time_is_the_limit_of_slow_membranes():
    for tau in (200.0, 2000.0):
        discrete = frozen_rate(tau, 0.5, 5 / tau**2)
        smooth = ContinuousDynamics(tau, 0.5, 5 / tau**2)
        assert smooth.is_stable
        for pole, exponent in zip(sorted(discrete.poles, key=lambda z: z.imag), reversed(smooth.poles), strict=True):
            assert cmath.log(pole) == pytest.approx(exponent, rel=3 / tau)
        assert discrete.damping_ratio == pytest.approx(smooth.damping_ratio, rel=3 / tau)
        for kind in (Disturbance.WHITE, Disturbance.WIENER):
            assert limit(discrete, kind, 1.0) == pytest.approx(smooth.limit(kind, 1.0), rel=3 / tau)


def test_a_hard_reset_leaves_the_frozen_loop_open_and_makes_the_responding_one_positive():
    frozen = frozen_rate(5.0, 0.5, 0.2, Reset.HARD)
    assert frozen.coupling == 0 and frozen.stable_adaptation is None
    assert max(abs(pole) for pole in frozen.poles) == pytest.approx(1)
    for sensitivity in (0.01, 0.4, 1.0):
        responding = responding_rate(5.0, 0.5, sensitivity, 0.2, Reset.HARD)
        assert not responding.is_stable and static_feedback(responding) < 0
        assert responding.with_adaptation(-0.01).is_stable


def test_a_soft_reset_feeds_back_negatively_iff_the_rate_exceeds_the_sensitivity():
    for sensitivity in (0.1, 0.49, 0.51, 0.9):
        dynamics = responding_rate(5.0, 0.5, sensitivity, 0.01)
        assert dynamics.is_stable == (sensitivity < 0.5) == (static_feedback(dynamics) > 0)


def test_without_sensitivity_the_responding_soft_rate_is_the_frozen_one():
    assert responding_rate(5.0, 0.5, 0.0, 0.2) == frozen_rate(5.0, 0.5, 0.2)


def test_a_leak_stabilises_positive_feedback_up_to_a_bound_but_raises_the_error():
    leaky = responding_rate(5.0, 0.5, 0.4, 0.02, Reset.HARD, retention=0.9)
    low, high = leaky.stable_adaptation or (math.nan, math.nan)
    assert low < 0 < high == pytest.approx((1 - leaky.carry) * 0.1 / -leaky.coupling)
    assert leaky.is_stable and leaky.gain > leaky.with_adaptation(0.0).gain


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: frozen_rate(0.5, 0.5, 0.2), "tau_membrane = 0.5"),
        (lambda: frozen_rate(5.0, 1.5, 0.2), "firing rate of 1.5"),
        (lambda: frozen_rate(5.0, 0.5, math.nan), "adaptation = nan"),
        (lambda: frozen_rate(5.0, 0.5, 0.2, retention=1.1), "retention = 1.1"),
        (lambda: responding_rate(5.0, 0.5, -1.0, 0.2), "sensitivity of -1.0"),
        (lambda: frozen_rate(5.0, 0.0, 0.2).overdamped_adaptation, "no overdamped interval"),
        (lambda: ContinuousDynamics(-1.0, 0.5, 0.2), "tau_membrane > 0"),
        (lambda: lif_mean_square(1.0, Disturbance.WHITE, 1.0, 3), "|carry| < 1"),
    ],
)
def test_what_makes_no_sense_is_named(make, says):
    with pytest.raises(ConfigError) as error:
        make()
    assert says in str(error.value)
