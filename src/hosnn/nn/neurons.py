"""Layers of spiking neurons: modules that own parameters and the signature, and no state.

A layer maps synaptic currents [T, B, *N] to synaptic traces (or spikes) [T, B, *N].  Every call starts from rest.
"""

from enum import Enum
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified, identity_text
from hosnn.nn.fusion import ObservedModule
from hosnn.spiking.dynamics import neuron_step, resting
from hosnn.spiking.gradient_rule import GradientRule, Rule, bptt
from hosnn.spiking.kernels import backend, eager
from hosnn.spiking.kernels.kernel_spec import NOTHING_FUSED, FusionContext, KernelOutput
from hosnn.spiking.state import AdaptiveThreshold, Dynamics, State, Threshold, Trajectory


class Emit(Enum):
    """A layer's output: the synaptic trace a[t] (as in HoSNN), or the spikes s[t] themselves."""

    TRACE = "trace"
    SPIKES = "spikes"


@identified("Beyond")
class Extrapolation(Enum):
    """How values per time step are extended to more steps than they were recorded for.

    ERROR      not at all: it is an error
    HOLD_LAST  the last step's values hold for all later ones
    REPEAT     all of them begin anew
    """

    ERROR = "error"
    HOLD_LAST = "hold-last"
    REPEAT = "repeat"


@identified("LIF")
class LIF(ObservedModule):
    """Leaky integrate-and-fire neurons; `hosnn.spiking.dynamics.lif_step` gives the equations.

    fixed_threshold  keep this layer LIF when a network is made homeostatic (an output layer)
    own_thresholds   whether neurons have thresholds of their own, which TA-LIF would lose
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

    def forward(self, currents: Tensor, context: FusionContext = NOTHING_FUSED) -> Tensor:
        """context  operations fused into the layer's kernel; pooling changes the shape of the output"""
        self._check(currents)
        constant = context.constant
        threshold = self.threshold_over(constant.steps if constant else len(currents))
        emit = KernelOutput.SPIKES if self.emit is Emit.SPIKES else KernelOutput.TRACES
        return backend.run_layer(currents, self.dynamics, self.rule, threshold, emit, context)

    @torch.no_grad()
    def step(
        self, current: Tensor, state: State | None, t: int, beyond: Extrapolation | None = None
    ) -> tuple[Tensor, State]:
        """One time step of `forward`, to the bit, without a gradient.

        current  I[t]  [B, *N]
        state    what the step before returned; None: rest
        t        steps since rest, 0 at first
        beyond   as in `threshold_at`
        returns  a[t] (or s[t]) [B, *N] and the next state
        """
        self._check(current[None])
        state = resting(current, self.dynamics) if state is None else state
        step, state = neuron_step(current, state, self.threshold_at(t, beyond), self.dynamics, bptt())
        return step.spikes if self.emit is Emit.SPIKES else step.trace, state

    def can_fuse(self, like: Tensor, steps: int) -> bool:
        """Whether a fused kernel would run this layer on currents of the type and device of `like`."""
        return backend.fuses(like, self.rule, self.threshold_over(steps))

    def trajectory(self, currents: Tensor) -> Trajectory:
        """Membrane before reset, threshold, spikes and trace over time, each [T, B, *N]."""
        self._check(currents)
        return eager.trajectory(currents, self.dynamics, self.rule, self.threshold_over(len(currents)))

    def constrain_(self) -> None:
        """Project constrained parameters back to their sets, in place; the training loop calls it after each step."""

    def membranes(self, currents: Tensor) -> Tensor:
        """`trajectory(currents).membrane`, computed faster and without a gradient."""
        self._check(currents)
        return backend.membranes(currents, self.dynamics, self.threshold_over(len(currents)))

    def threshold_over(self, steps: int) -> Threshold:
        """The layer's threshold over `steps` time steps; None: `dynamics.threshold` at every step."""
        return None

    def threshold_at(self, t: int, beyond: Extrapolation | None = None) -> Threshold:
        """The threshold at step t >= 0; `beyond` overrides the layer's extrapolation to steps it has no values for."""
        return None

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
    beyond      how the signature is extended beyond its last step
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
        """A LIF layer made homeostatic.  Raises ConfigError for one with thresholds of its own."""
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

    def threshold_over(self, steps: int) -> Threshold:
        signature: Tensor = self.signature
        if steps != len(signature):
            signature = extrapolated(signature, steps, self.beyond)
        return AdaptiveThreshold(signature, self.adaptation)

    def threshold_at(self, t: int, beyond: Extrapolation | None = None) -> Threshold:
        number = step_number(t, len(self.signature), beyond or self.beyond)
        return AdaptiveThreshold(self.signature[number], self.adaptation)

    def _check(self, currents: Tensor) -> None:
        super()._check(currents)
        if currents.shape[2:] != self.signature.shape[1:]:
            raise ShapeError(
                f"TALIF got currents {tuple(currents.shape)} [T, B, *N] but has a signature "
                f"{tuple(self.signature.shape)} [T, *N]; calibrate the network at this size"
            )


def extrapolated(values: Tensor, steps: int, beyond: Extrapolation) -> Tensor:
    """`values` [T, *N] over another number of time steps, [steps, *N]: the first ones, or extended as `beyond` says.

    Raises ShapeError for more than T steps with Extrapolation.ERROR.
    """
    known = len(values)
    if steps <= known:
        return values if steps == known else values[:steps]
    step_number(steps - 1, known, beyond)
    step = torch.arange(steps, device=values.device)
    return values[step.clamp(max=known - 1) if beyond is Extrapolation.HOLD_LAST else step % known]


def step_number(t: int, known: int, beyond: Extrapolation) -> int:
    """Which of `known` values per time step is that of step t >= 0.  Raises ShapeError as `extrapolated` does."""
    if t < known:
        return t
    if beyond is Extrapolation.ERROR:
        raise ShapeError(
            f"a layer got currents over {t + 1} time steps but was calibrated on {known}; calibrate at {t + 1} "
            "steps, or choose Extrapolation.HOLD_LAST or Extrapolation.REPEAT"
        )
    return known - 1 if beyond is Extrapolation.HOLD_LAST else t % known


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
