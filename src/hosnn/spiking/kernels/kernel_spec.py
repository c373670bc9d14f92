"""What a fused kernel computes, as plain numbers: a layer's constants, its gradient rule, the operations fused into it.

`declarations` says how C and Triton are held to the same numbers.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy
from torch import Tensor

from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import (
    Arctan,
    Exponential,
    FastSigmoid,
    PiecewiseLinear,
    Rectangle,
    Sigmoid,
    StraightThrough,
    Surrogate,
)


class Emitted(IntEnum):
    """What a kernel writes.

    TRACES    a, the synaptic traces
    SPIKES    s
    DISTANCE  u - θ, or u - θ[0] if the rule's surrogate is evaluated there
    MEMBRANE  u, before reset
    """

    TRACES = 0
    SPIKES = 1
    DISTANCE = 2
    MEMBRANE = 3


SHAPES: tuple[type[Surrogate], ...] = (
    *(Sigmoid, FastSigmoid, Arctan, PiecewiseLinear, Rectangle, Exponential, StraightThrough),
)
"""Surrogates the kernels compute themselves, in the order of their numbers."""

GIVEN = len(SHAPES)
"""The number of any other surrogate: its derivative is computed in torch and passed as a tensor."""


class ConstantInput(NamedTuple):
    """Currents from one input x that stays for some time steps, through a synaptic filter (`coding.encode_constant`).

        I[t] = (1 - 1/τ_s) I[t-1] + x/τ_s

    initial  I[0] [*N], e.g. a bias that was added to x before the filter; None: 0
    """

    steps: int
    tau_synapse: float
    initial: Tensor | None = None


class FusionContext(NamedTuple):
    """Operations fused into a layer's kernel.

    pool_gain       pooling of the output: gain times the mean over windows of 2 x 2, [.., C, H, W] -> [.., C, H/2, W/2]
    constant        the currents are one input [1, B, *N] that stays for all time steps
    input_reusable  nobody else reads the currents, so that their gradient may be written into their memory
    """

    pool_gain: float | None = None
    constant: ConstantInput | None = None
    input_reusable: bool = False


UNFUSED = FusionContext()

REALS = 9
"""Fields of `KernelSpec` that are real numbers; they come first."""


class KernelSpec(NamedTuple):
    """Everything a kernel needs besides arrays.

    extra           the Sigmoid's clamp or the Exponential's peak
    pooled          the output is gain times the mean over windows of 2 x 2
    constant_steps  time steps of a `ConstantInput`; 0: there are currents for every step
    """

    membrane_decay: float
    synaptic_decay: float
    trace_of_spike: float
    rest: float
    gain: float
    width: float
    extra: float
    input_decay: float
    input_tau: float
    soft: bool
    emit: int
    surrogate: int
    leak: bool
    reset: bool
    threshold: bool
    at_rest: bool
    pooled: bool
    constant_steps: int

    @property
    def reals(self) -> list[float]:
        return [float(value) for value in self[:REALS]]

    @property
    def integers(self) -> list[int]:
        return [int(value) for value in self[REALS:]]

    @classmethod
    def unpacked(cls, reals: Sequence[float], integers: Sequence[int]) -> "KernelSpec":
        return cls(*reals, *integers)  # type: ignore[arg-type]


def kernel_spec(
    dynamics: Dynamics,
    rule: GradientRule,
    emit: Emitted,
    pool_gain: float | None = None,
    constant_steps: int = 0,
    input_tau: float = 1.0,
) -> KernelSpec:
    """The spec of a layer; pool_gain as in `FusionContext`, the last two as in `ConstantInput`."""
    shape, width, extra = _surrogate(rule)
    return KernelSpec(
        dynamics.membrane_decay,
        dynamics.synaptic_decay,
        float(numpy.float32(1) / numpy.float32(dynamics.tau_synapse)),  # as torch divides a spike
        dynamics.threshold,
        1.0 if pool_gain is None else pool_gain,
        width,
        extra,
        1 - 1 / input_tau if constant_steps else 0.0,
        input_tau,
        dynamics.reset is Reset.SOFT,
        emit,
        shape,
        rule.leak,
        rule.reset,
        rule.threshold,
        rule.at_resting_threshold,
        pool_gain is not None,
        constant_steps,
    )


kept_kernel_spec = lru_cache(maxsize=512)(kernel_spec)
"""`kernel_spec`, computed once: for rules that are plain values.  Others may hold what an attack remembers."""


def _surrogate(rule: GradientRule) -> tuple[int, float, float]:
    """Number, width and extra; GIVEN for another surrogate, and for a rule that differs from step to step."""
    surrogate = rule.surrogate
    if type(rule) is not GradientRule or type(surrogate) not in SHAPES:
        return GIVEN, 1.0, 1.0
    width = float(getattr(surrogate, "width", 1.0))
    extra = math.inf
    if isinstance(surrogate, Sigmoid):
        extra = surrogate.clamp
    elif isinstance(surrogate, Exponential):
        extra = 1 / (2 * width) if surrogate.peak is None else surrogate.peak
    return SHAPES.index(type(surrogate)), width, extra
