"""The error of a TA-LIF neuron's membrane as a linear system of second order, in discrete time.

With e = u - u* the error, φ = θ - θ[0] the shift of the threshold and d a disturbance of the input current, every
linearisation of LIF and TA-LIF has the form

    e[t] = α e[t-1] - g φ[t-1] + d[t]
    φ[t] = ρ φ[t-1] + k e[t]

α  carry      what one step leaves of an error            a = 1 - 1/τ_m where spikes do not respond to it
g  coupling   what a higher threshold takes off the membrane one step later; negative: it adds
k  adaptation of the threshold; 0 is LIF
ρ  retention  1 as published; below 1 the threshold leaks back to its resting value

Potentials are in units of the resting threshold, times in time steps.
Source: derived here from `spiking.dynamics`; the claim it tests is that of arXiv:2308.10373.
"""

import cmath
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hosnn.errors import ConfigError
from hosnn.spiking.state import Reset

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorDynamics:
    """e[t] = carry e[t-1] - coupling φ[t-1] + d[t],  φ[t] = retention φ[t-1] + adaptation e[t].

    Raises ConfigError for a number that is not finite or a retention outside [0, 1].
    """

    carry: float
    coupling: float
    adaptation: float
    retention: float = 1.0

    def __post_init__(self) -> None:
        for name in ("carry", "coupling", "adaptation", "retention"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"ErrorDynamics got {name} = {getattr(self, name)!r}; expected a finite number")
        if not 0 <= self.retention <= 1:
            raise ConfigError(f"ErrorDynamics got retention = {self.retention!r}; expected 0 to 1, 1 for no leak")

    def with_adaptation(self, adaptation: float) -> "ErrorDynamics":
        """The same neuron with another k; 0 gives LIF."""
        return replace(self, adaptation=adaptation)

    @property
    def loop_gain(self) -> float:
        """k g, which alone decides how the feedback acts."""
        return self.adaptation * self.coupling

    @property
    def matrix(self) -> Array:
        """The state matrix of (e, φ): [[α, -g], [k α, ρ - k g]]."""
        return np.array(
            [
                [self.carry, -self.coupling],
                [self.adaptation * self.carry, self.retention - self.loop_gain],
            ]
        )

    @property
    def trace(self) -> float:
        """Of the state matrix, α + ρ - k g; the characteristic polynomial is z² - trace z + determinant."""
        return self.carry + self.retention - self.loop_gain

    @property
    def determinant(self) -> float:
        """Of the state matrix, α ρ: it does not depend on k, so complex poles lie at radius sqrt(α ρ) for every k."""
        return self.carry * self.retention

    @property
    def poles(self) -> tuple[complex, complex]:
        """Roots of the characteristic polynomial, the one of larger modulus first."""
        root = cmath.sqrt(self.trace**2 - 4 * self.determinant)
        pair = ((self.trace + root) / 2, (self.trace - root) / 2)
        return pair if abs(pair[0]) >= abs(pair[1]) else pair[::-1]

    @property
    def is_stable(self) -> bool:
        """Whether both poles lie inside the unit circle (Jury): |αρ| < 1, -(1-α)(1-ρ) < k g < (1+α)(1+ρ)."""
        low, high = self._loop_gain_interval()
        return abs(self.determinant) < 1 and low < self.loop_gain < high

    @property
    def stable_adaptation(self) -> tuple[float, float] | None:
        """The open interval of k in which the system is stable; None if there is none.

        With ρ = 1:  0 < k < 2(1+α)/g  where g > 0;  2(1+α)/g < k < 0  where g < 0;  none where g = 0.
        """
        low, high = self._loop_gain_interval()
        if abs(self.determinant) >= 1 or low >= high:
            return None
        if self.coupling == 0:
            return (-math.inf, math.inf) if low < 0 < high else None
        ends = (low / self.coupling + 0.0, high / self.coupling + 0.0)
        return (min(ends), max(ends))

    @property
    def is_overdamped(self) -> bool:
        """Whether both poles are real and not negative, so that a disturbance's effect does not swing."""
        first, second = self.poles
        return first.imag == 0 and min(first.real, second.real) >= 0

    @property
    def overdamped_adaptation(self) -> tuple[float, float]:
        """The k between which poles are complex: (sqrt ρ - sqrt α)²/g and (sqrt ρ + sqrt α)²/g.

        Below the first poles are positive (overdamped), beyond the second negative (the sign changes every step).
        Raises ConfigError where α < 0 or g = 0, which have no such pair.
        """
        if self.carry < 0 or self.coupling == 0:
            raise ConfigError(f"{self} has no overdamped interval; it needs carry >= 0 and a coupling other than 0")
        roots = math.sqrt(self.retention), math.sqrt(self.carry)
        return (roots[0] - roots[1]) ** 2 / self.coupling, (roots[0] + roots[1]) ** 2 / self.coupling

    @property
    def damping_ratio(self) -> float:
        """ζ of the continuous system with the same poles, s = ln z: 1 or more is overdamped; inf with a pole at 0."""
        if self.determinant == 0:
            return math.inf
        first, second = (cmath.log(pole) for pole in self.poles)
        product = abs(first * second)
        return -(first + second).real / (2 * math.sqrt(product)) if product > 0 else math.inf

    @property
    def gain(self) -> float:
        """e in the long run under a constant disturbance d = 1, (1-ρ)/((1-α)(1-ρ) + k g); inf if it never settles.

        Without adaptation 1/(1-α), which is τ_m for LIF whose spikes do not respond; 0 with ρ = 1 and k g > 0.
        """
        if self.loop_gain == 0:
            return 1 / (1 - self.carry) if abs(self.carry) < 1 else math.inf
        if not self.is_stable:
            return math.inf
        leak = 1 - self.retention
        return leak / ((1 - self.carry) * leak + self.loop_gain)

    def transfer(self, z: complex) -> complex:
        """E(z)/D(z) = z (z - ρ)/(z² - trace z + determinant), from the disturbance to the error."""
        if self.loop_gain == 0:
            return z / (z - self.carry)
        return z * (z - self.retention) / (z * z - self.trace * z + self.determinant)

    def respond(self, disturbance: Array) -> tuple[Array, Array]:
        """Error and threshold shift over time from rest.

        disturbance  d[t]            [T, ...]
        returns      e[t] and φ[t]   [T, ...] each
        """
        error, shift = np.zeros_like(disturbance[0]), np.zeros_like(disturbance[0])
        errors, shifts = [], []
        for disturbance_t in disturbance:
            error = self.carry * error - self.coupling * shift + disturbance_t
            shift = self.retention * shift + self.adaptation * error
            errors.append(error)
            shifts.append(shift)
        return np.stack(errors), np.stack(shifts)

    def step_response(self, steps: int) -> Array:
        """e[t] under d = 1 from the first step on.  [T]"""
        return self.respond(np.ones(steps))[0]

    def _loop_gain_interval(self) -> tuple[float, float]:
        return (
            -(1 - self.carry) * (1 - self.retention),
            (1 + self.carry) * (1 + self.retention),
        )


def frozen_rate(
    tau_membrane: float, rate: float, adaptation: float, reset: Reset = Reset.SOFT, retention: float = 1.0
) -> ErrorDynamics:
    """The error where the firing rate stays what it was, whatever membrane and threshold do.

    E[v] = u - r θ after a soft reset and u (1 - r) after a hard one, so with a = 1 - 1/τ_m

        soft   α = a          g = a r
        hard   α = a (1 - r)  g = 0      the threshold acts on nothing: the loop is open

    tau_membrane  τ_m >= 1, time steps      rate  r, spikes per step, 0 to 1
    """
    decay = _decay(tau_membrane, rate)
    if reset is Reset.HARD:
        return ErrorDynamics(decay * (1 - rate), 0.0, adaptation, retention)
    return ErrorDynamics(decay, decay * rate, adaptation, retention)


def responding_rate(
    tau_membrane: float,
    rate: float,
    sensitivity: float,
    adaptation: float,
    reset: Reset = Reset.SOFT,
    retention: float = 1.0,
) -> ErrorDynamics:
    """The error where the firing rate follows membrane and threshold: the full linearisation.

    Let f be the density of the membrane's distribution over a population (or over time) and h = θ f(θ), the rate lost
    per relative rise of the threshold.  If the disturbance shifts that distribution without changing its shape,

        soft   E[v] = E[u] - θ P(u > θ)    dE[v] = (1 - h) de - (r - h) dφ       α = a (1 - h)      g = a (r - h)
        hard   E[v] = E[u; u <= θ]         dE[v] = (1 - r - h) de + h dφ         α = a (1 - r - h)  g = -a h

    A rising threshold prevents resets (h), which raises the membrane: a positive feedback.  With a hard reset it is the
    only one, so g < 0; with a soft one it wins where h > r.

    sensitivity  h >= 0; for a Gaussian membrane of mean m and standard deviation σ, θ/σ N((θ - m)/σ), N the normal
                 density
    """
    decay = _decay(tau_membrane, rate)
    if not (math.isfinite(sensitivity) and sensitivity >= 0):
        raise ConfigError(f"got a sensitivity of {sensitivity!r}; expected θ f(θ) >= 0, f a density")
    if reset is Reset.HARD:
        return ErrorDynamics(decay * (1 - rate - sensitivity), -decay * sensitivity, adaptation, retention)
    return ErrorDynamics(decay * (1 - sensitivity), decay * (rate - sensitivity), adaptation, retention)


def static_feedback(dynamics: ErrorDynamics) -> float:
    """G = g/(1-α), by how much the mean membrane falls per unit of a threshold held higher; the sign decides.

    For small k > 0 the slow pole is 1 - k G, so the threshold returns to where it was iff G > 0.
    """
    return dynamics.coupling / (1 - dynamics.carry)


def _decay(tau_membrane: float, rate: float) -> float:
    if not (math.isfinite(tau_membrane) and tau_membrane >= 1):
        raise ConfigError(f"got tau_membrane = {tau_membrane!r}; expected a number of time steps >= 1, e.g. 5")
    if not 0 <= rate <= 1:
        raise ConfigError(f"got a firing rate of {rate!r}; expected spikes per time step, 0 to 1")
    return 1 - 1 / tau_membrane
