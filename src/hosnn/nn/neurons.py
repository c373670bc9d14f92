"""Layers of spiking neurons: modules that own parameters and the signature, and never a state.

A layer maps synaptic currents [T, B, *N] to synaptic traces (or spikes) [T, B, *N].  Every call starts from rest.
"""

from enum import Enum
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified, identity_text
from hosnn.spiking.gradient_rule import GradientRule, Rule, bptt
from hosnn.spiking.kernels import backend, eager
from hosnn.spiking.kernels.kernel_spec import ALONE, Around
from hosnn.spiking.state import Dynamics, Step


class Emit(Enum):
    """What a layer hands on: the synaptic trace a[t] (as in HoSNN), or the spikes s[t] themselves."""

    TRACE = "trace"
    SPIKES = "spikes"


@identified("Beyond")
class Extrapolation(Enum):
    """What a signature means after its last time step: an error, its last value held, or the whole repeated."""

    ERROR = "error"
    HOLD_LAST = "hold-last"
    REPEAT = "repeat"


@identified("LIF")
class LIF(nn.Module):
    """Leaky integrate-and-fire neurons; `hosnn.spiking.dynamics.lif_step` gives the equations.

    fixed_threshold  keep this layer plain when a network is made homeostatic (an output layer)
    own_thresholds   whether each neuron has a threshold of its own, which a homeostatic twin would lose
    forward          currents [T, B, *N] -> traces (or spikes) [T, B, *N]
    Raises ShapeError if the currents are not floating point, have fewer than 2 dimensions or no time step.
    """

    own_thresholds: ClassVar[bool] = False

    def __init__(
        self,
        dynamics: Dynamics | None = None,
        rule: Rule | None = None,
        emit: Emit = Emit.TRACE,
        fixed_threshold: bool = False,
    ) -> None:
        super().__init__()
        self.dynamics = dynamics or Dynamics()
        self.rule: Rule = rule or bptt()
        self.emit = emit
        self.fixed_threshold = fixed_threshold

    def forward(self, currents: Tensor, around: Around = ALONE) -> Tensor:
        """The layer, where `can_fuse` together with what stands around it, in one pass over memory."""
        return self._run(currents, around)

    @property
    def as_written(self) -> bool:
        """Whether neither a subclass nor this layer has a forward of its own."""
        return "forward" not in vars(self) and type(self).forward is LIF.forward

    def can_fuse(self, currents: Tensor) -> bool:
        """Whether the kernel that would run these currents can, and a subclass changes nothing of the forward."""
        whole = currents.dim() == 5 and currents.numel() > 0 and min(currents.shape[-2:]) >= 2
        homeostasis = getattr(self, "signature", None), getattr(self, "adaptation", None)
        return self.as_written and whole and backend.fuses(currents, self.rule, *homeostasis)

    def _run(self, currents: Tensor, around: Around) -> Tensor:
        self._check(currents)
        signature, adaptation = self._homeostasis(around.held.steps if around.held else len(currents))
        fired = self.emit is Emit.SPIKES
        return backend.layer(currents, self.dynamics, self.rule, signature, adaptation, fired, around)

    def trajectory(self, currents: Tensor) -> Step:
        """Membrane before reset, threshold, spikes and trace over time, each [T, B, *N]."""
        self._check(currents)
        return eager.trajectory(currents, self.dynamics, self.rule, *self._homeostasis(len(currents)))

    def constrain_(self) -> None:
        """Project constrained parameters back to their sets, in place; the training loop calls it after each step."""

    def membranes(self, currents: Tensor) -> Tensor:
        """Membranes before reset over time [T, B, *N], without a gradient: `trajectory(currents).membrane` for less."""
        self._check(currents)
        return backend.membranes(currents, self.dynamics, *self._homeostasis(len(currents)))

    def _homeostasis(self, steps: int) -> tuple[Tensor | None, Tensor | None]:
        """The signature over `steps` [T, *N] and k; both None for a plain neuron."""
        return None, None

    def _check(self, currents: Tensor) -> None:
        if currents.dim() < 2 or len(currents) == 0 or not currents.is_floating_point():
            raise ShapeError(
                f"{type(self).__name__} got {currents.dtype} currents {tuple(currents.shape)}; expected floating point "
                "[T, B, *N], time first, with T >= 1; encode the images over time first (hosnn.ConstantCoding)"
            )

    def extra_repr(self) -> str:
        settings = f"{identity_text(self.dynamics)}, {identity_text(self.rule)}"
        return settings + (", fixed_threshold=True" if self.fixed_threshold else "")


@identified("TALIF")
class TALIF(LIF):
    """LIF neurons whose threshold adapts to hold the membrane near a stored signature (`talif_step`).

    signature   u*, mean membrane before reset on clean data  [T, *N]  potential, a buffer
    adaptation  k >= 0, per neuron [*N], channel [C, 1, ..] or layer []  per time step, learned
    beyond      what to do when asked for more steps than the signature has
    Raises ShapeError if currents and signature disagree, ConfigError for a negative k.
    Source: HoSNN, arXiv:2308.10373.
    """

    signature: Tensor

    def __init__(
        self,
        signature: Tensor,
        adaptation: Tensor | float = 0.2,
        dynamics: Dynamics | None = None,
        rule: Rule | None = None,
        emit: Emit = Emit.TRACE,
        beyond: Extrapolation = Extrapolation.ERROR,
    ) -> None:
        super().__init__(dynamics, rule, emit)
        if emit is Emit.SPIKES and isinstance(self.rule, GradientRule) and self.rule.local_adaptation:
            raise ConfigError(
                "TALIF got emit=SPIKES with the local rule for k (TSSL-BP), which is defined on traces, so k would not "
                "learn; use Emit.TRACE or another rule, e.g. bptt()"
            )
        adaptation = torch.as_tensor(adaptation, dtype=signature.dtype, device=signature.device)
        if not bool(((adaptation >= 0) & adaptation.isfinite()).all()):
            raise ConfigError(f"TALIF got adaptation k with minimum {adaptation.min():g}; expected finite k >= 0")
        try:
            adaptation.expand(signature.shape[1:])
        except RuntimeError:
            raise ShapeError(
                f"TALIF got adaptation {tuple(adaptation.shape)}; expected a shape that broadcasts to the neurons "
                f"{tuple(signature.shape[1:])} of its signature"
            ) from None
        self.register_buffer("signature", signature.clone())
        self.adaptation = nn.Parameter(adaptation.clone())
        self.beyond = beyond

    @classmethod
    def from_lif(
        cls, layer: LIF, signature: Tensor, adaptation: Tensor | float, beyond: Extrapolation = Extrapolation.ERROR
    ) -> Self:
        """The homeostatic twin of a plain layer.  Raises ConfigError for one with thresholds of its own."""
        if layer.own_thresholds:
            raise ConfigError(
                f"TALIF.from_lif got a {type(layer).__name__}, whose own thresholds would be lost: adaptation starts "
                "from one constant; start from a LIF layer"
            )
        return cls(signature, adaptation, layer.dynamics, layer.rule, layer.emit, beyond)

    def constrain_(self) -> None:
        """Project k back to k >= 0, in place."""
        with torch.no_grad():
            self.adaptation.clamp_(min=0)

    def _homeostasis(self, steps: int) -> tuple[Tensor | None, Tensor | None]:
        return prolonged(self.signature, steps, self.beyond), self.adaptation

    def _check(self, currents: Tensor) -> None:
        super()._check(currents)
        if currents.shape[2:] != self.signature.shape[1:]:
            raise ShapeError(
                f"TALIF got current {tuple(currents.shape)} [T, B, *N] but was calibrated on a signature "
                f"{tuple(self.signature.shape)} [T, *N]; re-run calibrate() at this length and size"
            )


def prolonged(values: Tensor, steps: int, beyond: Extrapolation) -> Tensor:
    """`values` [T, *N] over another number of time steps [steps, *N]: cut, or as `beyond` says.

    Raises ShapeError for more than T steps unless `beyond` says what then.
    """
    known = len(values)
    if steps <= known:
        return values if steps == known else values[:steps]
    if beyond is Extrapolation.ERROR:
        raise ShapeError(
            f"a layer got currents over {steps} time steps but was calibrated on {known}; calibrate at {steps} "
            "steps, or choose Extrapolation.HOLD_LAST or Extrapolation.REPEAT"
        )
    at = torch.arange(steps, device=values.device)
    return values[at.clamp(max=known - 1) if beyond is Extrapolation.HOLD_LAST else at % known]


def constrain_(model: nn.Module) -> None:
    """Project every constrained parameter of `model` back to its set, in place (k >= 0, learned thresholds > 0)."""
    for layer in neurons(model).values():
        layer.constrain_()


def neurons(model: nn.Module) -> dict[str, LIF]:
    """The spiking layers of `model` by their module path, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LIF)}


def hidden_neurons(model: nn.Module) -> dict[str, LIF]:
    """The spiking layers that take part in homeostasis: all but those with `fixed_threshold`."""
    return {name: layer for name, layer in neurons(model).items() if not layer.fixed_threshold}
