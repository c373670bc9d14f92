"""How the mean square error grows with time under a disturbance of the input current.

Closed forms where there are, the exact covariance recursion elsewhere; both from rest, e = φ = 0 before the first step.
"""

import math
from enum import Enum

import numpy as np

from hosnn.errors import ConfigError
from hosnn.theory.linear import Array, ErrorDynamics


class Disturbance(Enum):
    """d[t] = size at every step, or independent N(0, size²), or d[t-1] + N(0, size²)."""

    CONSTANT = "constant"
    WHITE = "white"
    WIENER = "wiener"


def mean_square(dynamics: ErrorDynamics, disturbance: Disturbance, size: float, steps: int) -> Array:
    """E[e[t]²], t = 1..steps, by the recursion P[t] = F P[t-1] Fᵀ + size² B Bᵀ of the covariance of (e, φ, d).

    F = [[α, -g, λ], [k α, ρ - k g, k λ], [0, 0, λ]],  B = (1, k, 1);  λ = 0 for white noise, else 1
    returns  [T]
    """
    persistence = 0.0 if disturbance is Disturbance.WHITE else 1.0
    transition = np.zeros((3, 3))
    transition[:2, :2] = dynamics.matrix
    transition[:, 2] = persistence * np.array([1.0, dynamics.adaptation, 1.0])
    source = np.array([1.0, dynamics.adaptation, 1.0])
    noise, covariance = size**2 * np.outer(source, source), np.zeros((3, 3))
    if disturbance is Disturbance.CONSTANT:
        noise, covariance[2, 2] = np.zeros((3, 3)), size**2
    squares = []
    for _ in range(steps):
        covariance = transition @ covariance @ transition.T + noise
        squares.append(covariance[0, 0])
    return np.maximum(squares, 0.0)  # rounding leaves -1e-17 where the error is gone


def lif_mean_square(carry: float, disturbance: Disturbance, size: float, steps: int) -> Array:
    """E[e[t]²] of a neuron without adaptation in closed form, with b = carry:

        constant  size² ((1 - b^t)/(1 - b))²
        white     size² (1 - b^2t)/(1 - b²)
        Wiener    size²/(1 - b)² (t - 2 b (1 - b^t)/(1 - b) + b² (1 - b^2t)/(1 - b²))

    returns  [T]
    """
    if not abs(carry) < 1:
        raise ConfigError(f"got carry = {carry!r}; the closed form needs |carry| < 1")
    t = np.arange(1, steps + 1)
    first, second = (1 - carry**t) / (1 - carry), (1 - carry ** (2 * t)) / (1 - carry**2)
    square = {
        Disturbance.CONSTANT: first**2,
        Disturbance.WHITE: second,
        Disturbance.WIENER: (t - 2 * carry * first + carry**2 * second) / (1 - carry) ** 2,
    }[disturbance]
    return np.asarray(size**2 * square)


def limit(dynamics: ErrorDynamics, disturbance: Disturbance, size: float) -> float:
    """E[e²] in the long run; inf if it grows without bound.  With T and D the trace and the determinant:

        constant  (size gain)²
        white     size² ((1 + ρ²)(1 + D) - 2 ρ T)/((1 - D)((1 + D)² - T²));   LIF size²/(1 - α²)
        Wiener    size² (1 + D)/((1 - D)((1 + D)² - T²)) with ρ = 1; inf with ρ < 1 and for LIF

    With ρ = 1 white noise gives size² 2/((1 - α)(2(1 + α) - k g)), 1/(1 - k g/(2(1 + α))) times LIF's: never less.
    """
    if dynamics.loop_gain == 0:
        if disturbance is Disturbance.WIENER or abs(dynamics.carry) >= 1:
            return math.inf
        if disturbance is Disturbance.CONSTANT:
            return (size * dynamics.gain) ** 2
        return size**2 / (1 - dynamics.carry**2)
    if not dynamics.is_stable:
        return math.inf
    if disturbance is Disturbance.CONSTANT:
        return (size * dynamics.gain) ** 2
    trace, determinant, retention = dynamics.trace, dynamics.determinant, dynamics.retention
    common = (1 - determinant) * ((1 + determinant) ** 2 - trace**2)
    if disturbance is Disturbance.WHITE:
        return size**2 * ((1 + retention**2) * (1 + determinant) - 2 * retention * trace) / common
    return size**2 * (1 + determinant) / common if retention == 1 else math.inf


def wiener_slope(dynamics: ErrorDynamics, size: float) -> float:
    """By how much E[e²] grows per step in the long run under a Wiener disturbance: (size gain)²."""
    return (size * dynamics.gain) ** 2
