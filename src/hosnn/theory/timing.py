"""The same neuron with its spikes prescribed: the rate says too little, their timing matters.

A soft reset with spikes s[t] that do not respond gives a linear system that changes with time,

    (e, φ)[t+1] = A_s (e, φ)[t],   A_s = [[a, -a s], [k a, 1 - k a s]]

`linear.frozen_rate` puts the mean r for s.  Below s is regular, or random.
"""

import numpy as np

from hosnn.errors import ConfigError
from hosnn.theory.linear import Array


def regular_boundary(tau_membrane: float, period: float) -> float:
    """The upper end of the stable interval of k where a spike comes at every period-th step, soft reset.

        0 < k < 2 (1 - a)(1 + a^n)/(a (1 - a^n)),   n the period

    From the product A_0^(n-1) A_1, of trace 1 + a^n - k a (1 - a^n)/(1 - a) and determinant a^n.  With n = 1 this is
    the frozen-rate bound 2 (1 + a)/a; with n -> inf it falls to 2 (1 - a)/a = 2/(τ_m - 1), where the frozen-rate bound
    2 (1 + a) n/a grows: at low rates the frozen rate promises too much.
    """
    decay = 1 - 1 / tau_membrane
    if not (decay > 0 and period >= 1):
        raise ConfigError(f"got tau_membrane {tau_membrane!r}, period {period!r}; expected more than 1 and at least 1")
    left: float = decay**period
    return 2 * (1 - decay) * (1 + left) / (decay * (1 - left))


def regular_cycle(tau_membrane: float, adaptation: float, period: int) -> Array:
    """A_0^(period-1) A_1, which takes (e, φ) from one spike to the next.  [2, 2]"""
    silent, spiking = _matrices(tau_membrane, adaptation)
    return np.linalg.matrix_power(silent, period - 1) @ spiking


def random_radius(tau_membrane: float, adaptation: float, rate: float) -> float:
    """Spectral radius of E[A ⊗ A] where spikes are independent with probability `rate`; below 1: E[e²] stays bounded.

    The mean of e then follows the frozen-rate recursion exactly.
    """
    silent, spiking = _matrices(tau_membrane, adaptation)
    second = (1 - rate) * np.kron(silent, silent) + rate * np.kron(spiking, spiking)
    return float(np.abs(np.linalg.eigvals(second)).max())


def random_boundary(tau_membrane: float, rate: float) -> float:
    """The upper end of the interval of k in which E[e²] stays bounded with independent random spikes, by bisection."""
    low, high = 0.0, 2 * (2 - 1 / tau_membrane) / ((1 - 1 / tau_membrane) * rate)
    for _ in range(60):
        middle = (low + high) / 2
        inside = random_radius(tau_membrane, middle, rate) < 1
        low, high = (middle, high) if inside else (low, middle)
    return low


def _matrices(tau_membrane: float, adaptation: float) -> tuple[Array, Array]:
    decay = 1 - 1 / tau_membrane
    return (
        np.array([[decay, 0.0], [adaptation * decay, 1.0]]),
        np.array([[decay, -decay], [adaptation * decay, 1 - adaptation * decay]]),
    )
