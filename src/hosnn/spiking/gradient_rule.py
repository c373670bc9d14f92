"""How a spiking neuron is differentiated.  A rule changes only the backward pass; the forward stays bit-identical."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.spiking.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from hosnn.spiking.state import Dynamics, Trajectory


class Sharpness(NamedTuple):
    """The state of ASSG, a surrogate with a sharpness per sample, neuron and time step (`estimators/sharpness.py`).

        M <- |x| + β (M - |x|),   D <- ||x| - M| + β (D - ||x| - M|),   sharpness = a / (M + ρ D + 1e-4)

    mean, deviation  M and D of every sample of the attack, updated in place  [T, samples, *N]
    rows             rows of the batch's samples in M and D                        [B]
    keep, scale      β (0 in a sample's first pass, 1 without update) and a        [B] each
    relax            ρ
    learning         whether to update M and D
    """

    mean: Tensor
    deviation: Tensor
    rows: Tensor
    keep: Tensor
    scale: Tensor
    relax: float
    learning: bool


@identified("GradientRule")
@dataclass(frozen=True)
class GradientRule:
    """Back-propagation through time along the open paths.

    At each step the membrane u[t] influences the loss through the spike s[t] (surrogate) and along three further paths:

    leak       u[t+1] = (1 - 1/τ_m) v[t] + I[t+1]
    reset      v[t] = u[t] (1 - s[t])   or   u[t] - θ[t] s[t], by way of s[t] (and of θ[t])
    threshold  θ[t] = θ[t-1] + k (u[t] - u*[t]), hence every later spike

    A path set to False is cut: it carries no gradient.  With `threshold` cut, k gets no gradient from autograd;
    `local_adaptation` gives it that of the authors' code,  dL/dk = -0.1 mean_t(sum_B dL/dI) mean_{t,B}(u - u*).
    With `at_resting_threshold` the surrogate is evaluated at u[t] - θ[0] instead of at u[t] - θ[t].
    Source: authors' code, functions/tsslbp.py; TSSL-BP, Zhang & Li, NeurIPS 2020.
    """

    surrogate: Surrogate = Sigmoid(0.2)  # noqa: RUF009  (a frozen value)
    leak: bool = True
    reset: bool = True
    threshold: bool = True
    at_resting_threshold: bool = False
    local_adaptation: bool = False

    def __post_init__(self) -> None:
        if self.local_adaptation and not self.is_local_in_time:
            raise ConfigError(
                "GradientRule got local_adaptation=True with an open path; the local rule for k is defined where leak, "
                "reset and threshold are all cut, as in tssl_bp()"
            )

    @property
    def is_local_in_time(self) -> bool:
        """True if no open path joins two time steps inside the neuron, so that gradients of steps are independent."""
        return not (self.leak or self.reset or self.threshold)

    def with_surrogate(self, surrogate: Surrogate) -> "GradientRule":
        return replace(self, surrogate=surrogate)

    def surrogate_at(self, resting_threshold: float) -> Surrogate:
        """The surrogate as a function of potentials in a layer with this θ[0]: its widths are in units of θ[0]."""
        return self.surrogate.in_units_of(resting_threshold)

    def at(self, step: int) -> "GradientRule":
        """The rule of time step 0, 1, ..; the same at every step unless a subclass says otherwise."""
        return self

    def sharpness(self, shape: tuple[int, ...], allocate: Callable[[int], tuple[Tensor, Tensor]]) -> Sharpness | None:
        """ASSG's state for one call of a layer, for a kernel that computes all its steps at once; None for other rules.

        shape     of a sample's currents, (T, *N)
        allocate  number of samples -> two arrays of zeros, for M and D
        """
        return None


@dataclass(frozen=True)
class WholeLayerRule:
    """A gradient rule that computes a layer's backward from all time steps at once; subclasses define `backward`.

    The adaptation rate k gets no gradient.
    """

    def backward(self, gradient: Tensor, trajectory: "Trajectory", currents: Tensor, dynamics: "Dynamics") -> Tensor:
        """dL/dI from dL/ds.

        gradient    dL/ds                   [T, B, *N]
        trajectory  u, θ, s, a of the layer  [T, B, *N] each
        currents    I                       [T, B, *N]
        returns     dL/dI                   [T, B, *N]
        """
        raise TypeError(f"{type(self).__name__} does not define backward(gradient, trajectory, currents, dynamics)")


Rule = GradientRule | WholeLayerRule


def bptt(surrogate: Surrogate | None = None) -> GradientRule:
    """Full back-propagation through leak, reset and threshold."""
    return GradientRule(surrogate or Sigmoid(0.2))


def tssl_bp() -> GradientRule:
    """TSSL-BP as implemented in the HoSNN authors' code.

    ga[t] = (1 - 1/τ_s) ga[t+1] + g[t];   dI[t] = ga[t]/τ_s · σ'((u[t] - 1)/0.2)/0.2, argument clamped to ±8
    (θ[0] = 1; widths are in units of it);
    no path through leak, reset or threshold; k by the local rule of `GradientRule`.
    """
    return GradientRule(
        Sigmoid(0.2, clamp=8.0),
        leak=False,
        reset=False,
        threshold=False,
        at_resting_threshold=True,
        local_adaptation=True,
    )
