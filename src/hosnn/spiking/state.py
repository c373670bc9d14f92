"""Constants and state of spiking neurons, as values."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified


@identified("Reset")
class Reset(Enum):
    """Effect of a spike on the membrane: HARD v = u (1 - s), the authors' code; SOFT v = u - θ s, the theory."""

    HARD = "hard"
    SOFT = "soft"


@identified("Dynamics")
@dataclass(frozen=True)
class Dynamics:
    """Constants of a neuron.  Raises ConfigError for time constants below 1 step or a threshold that is not positive.

    tau_membrane  τ_m, time steps; infinite: the membrane does not leak (integrate-and-fire)
    tau_synapse   τ_s, time steps
    threshold     θ[0], potential
    """

    tau_membrane: float = 5.0
    tau_synapse: float = 3.0
    threshold: float = 1.0
    reset: Reset = Reset.HARD

    def __post_init__(self) -> None:
        for name in ("tau_membrane", "tau_synapse"):
            tau = getattr(self, name)
            if not tau >= 1 or (tau == math.inf and name == "tau_synapse"):
                raise ConfigError(f"Dynamics got {name} = {tau!r}; expected a number of time steps >= 1, e.g. 5")
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ConfigError(f"Dynamics got threshold = {self.threshold!r}; expected a positive potential, e.g. 1")

    @property
    def membrane_decay(self) -> float:
        return 1 - 1 / self.tau_membrane

    def impulse_sums(self, times: Tensor) -> Tensor:
        """sum_{j < t} (1 - 1/τ_m)^j for each t of `times`: u after t steps of a current of 1, without spikes."""
        if self.tau_membrane == math.inf:
            return times
        return self.tau_membrane * (1 - self.membrane_decay**times)

    @property
    def synaptic_decay(self) -> float:
        return 1 - 1 / self.tau_synapse


class State(NamedTuple):
    """The state that a neuron carries to the next step, each [B, *N]."""

    membrane: Tensor  # v, after reset
    threshold: Tensor  # θ
    trace: Tensor  # a


class Step(NamedTuple):
    """The variables of neurons at one time step, each [B, *N]."""

    membrane: Tensor  # u, before reset
    threshold: Tensor  # θ
    spikes: Tensor  # s in {0, 1}
    trace: Tensor  # a, the layer's output


class Trajectory(Step):
    """The same variables over T steps from rest, each [T, B, *N]."""


class AdaptiveThreshold(NamedTuple):
    """A threshold that opposes the membrane's drift from its clean-data signature: θ[t] = θ[t-1] + k (u[t] - u*[t])."""

    signature: Tensor  # u* [T, *N], potential
    adaptation: Tensor  # k >= 0, broadcastable to [*N], per time step


class StaticThreshold(NamedTuple):
    """A threshold that does not react to the membrane, but may differ between time steps: θ[t] = values[t]."""

    values: Tensor  # [T, *N], or what broadcasts to [*N] at each step; potential


Threshold = AdaptiveThreshold | StaticThreshold | None
"""None: `Dynamics.threshold` at every step."""


def threshold_at(threshold: Threshold, t: int) -> Threshold:
    """A threshold over T steps at one of them: with u*[t], or θ[t], in place of the values of all steps."""
    if threshold is None:
        return None
    if isinstance(threshold, StaticThreshold):
        return StaticThreshold(threshold.values[t])
    return threshold._replace(signature=threshold.signature[t])


def threshold_tensors(threshold: Threshold) -> tuple[Tensor | None, Tensor | None]:
    """(u*, k) of an adaptive threshold, (θ, None) of a static one, (None, None) of none.

    Kernels call the first one `target`, the second one `adaptation`.
    """
    if threshold is None:
        return None, None
    return (threshold.values, None) if isinstance(threshold, StaticThreshold) else (*threshold,)


def threshold_from_tensors(target: Tensor | None, adaptation: Tensor | None) -> Threshold:
    """The inverse of `threshold_tensors`."""
    if target is None:
        return None
    return StaticThreshold(target) if adaptation is None else AdaptiveThreshold(target, adaptation)
