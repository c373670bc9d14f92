"""How a spiking neuron is differentiated.  A rule changes only the backward pass; the forward stays bit-identical."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.spiking.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from hosnn.spiking.state import Dynamics, Step


class Sharpness(NamedTuple):
    """State of a surrogate that is as sharp as each neuron's distances so far (ASSG, `estimators/sharpness.py`).

    mean, deviation  M and D of every remembered sample, updated in place  [T, samples, *N]
    rows             which of the samples these are                                      [B]
    keep, scale      β, or 0 the first time; a                                           [B] each
    learning         whether to update
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
    """Back-propagation through time over the open paths.

    Per step the membrane u[t] reaches the loss through the spike s[t] (surrogate) and through three further paths:

    leak       u[t+1] = (1 - 1/τ_m) v[t] + I[t+1]
    reset      v[t] = u[t] (1 - s[t])   or   u[t] - θ[t] s[t], by way of s[t] (and of θ[t])
    threshold  θ[t] = θ[t-1] + k (u[t] - u*[t]), hence every later spike

    A path set to False carries no gradient.  With `threshold` cut, autograd gives k none; `local_adaptation` then
    replaces it by the rule of the authors' code,  dL/dk = -0.1 mean_t(sum_B dL/dI) mean_{t,B}(u - u*).
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
        """True if no path joins two time steps inside the neuron, so that one step's gradient needs no other step."""
        return not (self.leak or self.reset or self.threshold)

    def with_surrogate(self, surrogate: Surrogate) -> "GradientRule":
        return replace(self, surrogate=surrogate)

    def at(self, step: int) -> "GradientRule":
        """The rule of time step 0, 1, ..; the same at every step unless a subclass says otherwise."""
        return self

    def sharpness(self, shape: tuple[int, ...], room: Callable[[int], tuple[Tensor, Tensor]]) -> Sharpness | None:
        """ASSG's state for a layer's next run, for backends that compute it over all steps at once; None: see `at`.

        shape  of the run, (T, *N)
        room   number of samples -> two arrays of zeros, M and D
        """
        return None


@dataclass(frozen=True)
class WholeLayer:
    """A backward computed from a layer's whole run at once rather than step by step; subclasses define `backward`.

    The adaptation rate k gets no gradient.
    """

    def backward(self, gradient: Tensor, run: "Step", currents: Tensor, dynamics: "Dynamics") -> Tensor:
        """dL/dI from dL/ds.

        gradient  dL/ds, of the loss to the spikes                  [T, B, *N]
        run       u, θ, s, a of the layer                           [T, B, *N] each
        currents  I                                                 [T, B, *N]
        returns   dL/dI                                             [T, B, *N]
        """
        raise TypeError(f"{type(self).__name__} does not define backward(gradient, run, currents, dynamics)")


Rule = GradientRule | WholeLayer


def bptt(surrogate: Surrogate | None = None) -> GradientRule:
    """Full back-propagation through leak, reset and threshold."""
    return GradientRule(surrogate or Sigmoid(0.2))


def tssl_bp() -> GradientRule:
    """TSSL-BP as the HoSNN authors' code has it.

    ga[t] = (1 - 1/τ_s) ga[t+1] + g[t];   dI[t] = ga[t]/τ_s · σ'((u[t] - 1)/0.2)/0.2, argument clamped to ±8;
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
