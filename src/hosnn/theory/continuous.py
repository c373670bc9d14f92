"""The limit of slow membranes: the frozen-rate error as an oscillator in continuous time.

Let τ_m grow with time counted in steps; then 1 - α -> 1/τ, g -> r and differences become derivatives:

    e' = -e/τ - r φ + d,   φ' = k e      so      e'' + e'/τ + r k e = d'

Two things are lost on the way: the upper end of the stable interval of k (there is none), and the rise of the error's
variance under white noise.  Soft reset; with a hard one the frozen rate leaves the loop open (see `linear`).
"""

import cmath
import math
from dataclasses import dataclass

from hosnn.errors import ConfigError
from hosnn.theory.growth import Disturbance


@dataclass(frozen=True)
class ContinuousDynamics:
    """e'' + e'/τ + r k e = d'.   Raises ConfigError unless τ > 0 and 0 <= r <= 1.

    tau_membrane  τ, time steps      rate  r, spikes per step      adaptation  k, per step
    """

    tau_membrane: float
    rate: float
    adaptation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tau_membrane) and self.tau_membrane > 0 and 0 <= self.rate <= 1):
            raise ConfigError(f"{self}: expected tau_membrane > 0 and a rate from 0 to 1")

    @property
    def poles(self) -> tuple[complex, complex]:
        """(-1 ± sqrt(1 - 4 τ² r k))/(2 τ), per time step."""
        root = cmath.sqrt(1 - 4 * self.tau_membrane**2 * self.rate * self.adaptation)
        return (-1 + root) / (2 * self.tau_membrane), (-1 - root) / (2 * self.tau_membrane)

    @property
    def is_stable(self) -> bool:
        """r k > 0, whatever its size."""
        return self.rate * self.adaptation > 0

    @property
    def natural_frequency(self) -> float:
        """sqrt(r k), radians per time step, for r k >= 0."""
        return math.sqrt(self.rate * self.adaptation)

    @property
    def damping_ratio(self) -> float:
        """1/(2 τ sqrt(r k)); 1 or more is overdamped, that is r k <= 1/(4 τ²)."""
        return 1 / (2 * self.tau_membrane * self.natural_frequency) if self.natural_frequency else math.inf

    def limit(self, disturbance: Disturbance, size: float) -> float:
        """E[e²] in the long run: constant 0, white size² τ/2 (as LIF), Wiener size² τ/(2 r k); inf if unstable."""
        if not self.is_stable:
            return math.inf
        loop_gain = self.rate * self.adaptation
        return {
            Disturbance.CONSTANT: 0.0,
            Disturbance.WHITE: size**2 * self.tau_membrane / 2,
            Disturbance.WIENER: size**2 * self.tau_membrane / (2 * loop_gain),
        }[disturbance]
