"""Neurons whose thresholds are constants or learned but do not adapt: controls for TA-LIF."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified
from hosnn.nn.neurons import LIF, Emit, Extrapolation, extrapolated, step_number
from hosnn.spiking.coding import encode_constant
from hosnn.spiking.gradient_rule import GradientRule, Rule
from hosnn.spiking.kernels.kernel_spec import NOTHING_FUSED, FusionContext
from hosnn.spiking.state import Dynamics, StaticThreshold, Threshold


@identified("ThresholdLIF")
class ThresholdLIF(LIF):
    """LIF neurons that each have a threshold of their own, learned or constant: TA-LIF without adaptation.

        s[t] = 1 if u[t] > θ[t] else 0,   θ[t] independent of the membrane

    threshold  θ  [1, *N], or [T, *N] for one per time step; *N may be shared by a channel [1, C, 1, ..] or layer [1]
    learn      True: a parameter, kept at or above `MIN_THRESHOLD` by `constrain_`; False: constant, any finite numbers
    beyond     how thresholds per time step are extended beyond the last one
    Learned under full BPTT by autograd through the spike (and a soft reset); under a rule local in time by
    dL/dθ = -sum_{t,B} dL/dI, with the surrogate evaluated where the rule says (TSSL-BP: at `dynamics.threshold`).
    Raises ConfigError for thresholds that are not finite, or learned and not positive, or learned under a rule that
    gives them no gradient; ShapeError if they do not fit the currents.
    """

    MIN_THRESHOLD = 0.01

    own_thresholds = True

    threshold: Tensor

    def __init__(
        self,
        threshold: Tensor,
        dynamics: Dynamics | None = None,
        rule: Rule | None = None,
        emit: Emit = Emit.TRACE,
        learn: bool = True,
        beyond: Extrapolation = Extrapolation.ERROR,
    ) -> None:
        super().__init__(dynamics, rule, emit)
        smallest = self.MIN_THRESHOLD if learn else -math.inf
        if threshold.dim() == 0 or len(threshold) == 0:
            raise ConfigError(
                f"ThresholdLIF got thresholds {tuple(threshold.shape)}; expected [T or 1, *N], time first"
            )
        if not bool((threshold.isfinite() & (threshold >= smallest)).all()):
            raise ConfigError(
                f"ThresholdLIF got thresholds with minimum {threshold.min():g}; expected finite numbers"
                + (f" of at least {smallest} to learn from, or learn=False" if learn else "")
            )
        if learn and not self._trains_thresholds(self.rule):
            raise ConfigError(
                f"ThresholdLIF got {self.rule}, which gives thresholds no gradient, so they would not learn; use "
                "bptt(), tssl_bp() or learn=False"
            )
        if learn:
            self.threshold = nn.Parameter(threshold.detach().clone())
        else:
            self.register_buffer("threshold", threshold.detach().clone())
        self.beyond = beyond

    @classmethod
    def from_lif(
        cls, layer: LIF, threshold: Tensor, learn: bool = True, beyond: Extrapolation = Extrapolation.ERROR
    ) -> Self:
        """A layer whose constant or adapting thresholds are replaced by these."""
        return cls(threshold, layer.dynamics, layer.rule, layer.emit, learn, beyond)

    @property
    def learns(self) -> bool:
        return isinstance(self.threshold, nn.Parameter)

    def forward(self, currents: Tensor, context: FusionContext = NOTHING_FUSED) -> Tensor:
        if self._learns_through_currents:
            self._check(currents)
            if context.constant is not None:
                currents = encode_constant(currents[0], *context.constant)
                context = context._replace(constant=None)
            # A local rule gives a gradient to currents only.  Subtracting θ - θ.detach(), which is 0, passes it on to
            # the thresholds: the spike depends on u - θ, so raising θ is lowering the current.
            thresholds = self._thresholds(len(currents))
            ones = [1] * (currents.dim() - thresholds.dim())
            zero = (thresholds - thresholds.detach()).view(len(currents), *ones, *thresholds.shape[1:])
            currents = currents - zero
        return super().forward(currents, context)

    def can_fuse(self, like: Tensor, steps: int) -> bool:
        return not self._learns_through_currents and super().can_fuse(like, steps)

    def constrain_(self) -> None:
        """Project learned thresholds back to positive ones, in place."""
        if self.learns:
            with torch.no_grad():
                self.threshold.clamp_(min=self.MIN_THRESHOLD)

    def threshold_over(self, steps: int) -> Threshold:
        return StaticThreshold(self._thresholds(steps))

    def threshold_at(self, t: int, beyond: Extrapolation | None = None) -> Threshold:
        known = len(self.threshold)
        return StaticThreshold(self.threshold[0 if known == 1 else step_number(t, known, beyond or self.beyond)])

    def _thresholds(self, steps: int) -> Tensor:
        if len(self.threshold) == 1:
            return self.threshold.expand(steps, *self.threshold.shape[1:])
        return extrapolated(self.threshold, steps, self.beyond)

    @property
    def _learns_through_currents(self) -> bool:
        local = isinstance(self.rule, GradientRule) and self.rule.is_local_in_time
        return local and self.learns and torch.is_grad_enabled()

    @staticmethod
    def _trains_thresholds(rule: Rule) -> bool:
        return isinstance(rule, GradientRule) and (rule.threshold or rule.is_local_in_time)

    def _check(self, currents: Tensor) -> None:
        super()._check(currents)
        try:
            self.threshold[0].expand(currents.shape[2:])
        except RuntimeError:
            raise ShapeError(
                f"ThresholdLIF got currents {tuple(currents.shape)} [T, B, *N] but has thresholds "
                f"{tuple(self.threshold.shape)} [T or 1, *N]; make its thresholds at this size"
            ) from None
