"""What a fused kernel computes, as plain numbers: a layer's constants, its gradient rule, the operations fused into it.

`declarations` passes the same numbers on to C.
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


class KernelOutput(IntEnum):
    """Which quantity a kernel writes, at every time step.

    TRACES    a, the synaptic traces
    SPIKES    s
    DISTANCE  u - θ, or u - θ[0] if the gradient rule evaluates its surrogate there
    MEMBRANE  u, before reset
    """

    TRACES = 0
    SPIKES = 1
    DISTANCE = 2
    MEMBRANE = 3


KERNEL_SURROGATES: tuple[type[Surrogate], ...] = (
    Sigmoid,
    FastSigmoid,
    Arctan,
    PiecewiseLinear,
    Rectangle,
    Exponential,
    StraightThrough,
)
"""Surrogates that the kernels compute themselves, in the order of their numbers in C."""

PRECOMPUTED = len(KERNEL_SURROGATES)
"""The number of any other surrogate: its derivative is computed in torch and passed to the kernel as a tensor."""


class ConstantInput(NamedTuple):
    """An input x that is constant over time and becomes currents by a synaptic filter (`coding.encode_constant`).

        I[t] = (1 - 1/τ_s) I[t-1] + x/τ_s

    steps    T
    initial  I[0] [*N], e.g. the bias of a convolution that was applied before the filter; None: 0
    """

    steps: int
    tau_synapse: float
    initial: Tensor | None = None


class FusionContext(NamedTuple):
    """Operations fused into a layer's kernel.

    pool_gain       pooling of the output: gain times the mean over 2 x 2 windows, [.., C, H, W] -> [.., C, H/2, W/2];
                    None: no pooling
    constant        how the kernel makes currents of a constant input [1, B, *N]; None: it gets currents [T, B, *N]
    input_reusable  nothing else reads the currents, so that their gradient may be written into their memory
    """

    pool_gain: float | None = None
    constant: ConstantInput | None = None
    input_reusable: bool = False


NOTHING_FUSED = FusionContext()

NUM_REALS = 9
"""Fields of `KernelSpec` that are real numbers; they come first."""


class KernelSpec(NamedTuple):
    """Everything a kernel needs besides arrays.

    membrane_decay, synaptic_decay, resting_threshold  1 - 1/τ_m, 1 - 1/τ_s, θ[0]
    spike_increment         1/τ_s, what a spike adds to the trace
    gain, pooled            if pooled, the output is gain times the mean over 2 x 2 windows
    width, extra            of the surrogate; extra is the Sigmoid's clamp or the Exponential's peak
    input_decay, input_tau  1 - 1/τ and τ of a `ConstantInput`
    constant_steps          T of a `ConstantInput`; 0: the kernel gets currents of every step
    soft                    whether the reset is soft
    emit, surrogate         numbers of a `KernelOutput` and of a surrogate
    leak .. at_resting_threshold  as in `GradientRule`
    """

    membrane_decay: float
    synaptic_decay: float
    spike_increment: float
    resting_threshold: float
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
    at_resting_threshold: bool
    pooled: bool
    constant_steps: int

    @property
    def reals(self) -> list[float]:
        return [float(value) for value in self[:NUM_REALS]]

    @property
    def integers(self) -> list[int]:
        return [int(value) for value in self[NUM_REALS:]]

    @classmethod
    def unpacked(cls, reals: Sequence[float], integers: Sequence[int]) -> "KernelSpec":
        return cls(*reals, *integers)  # type: ignore[arg-type]


def kernel_spec(
    dynamics: Dynamics,
    rule: GradientRule,
    emit: KernelOutput,
    pool_gain: float | None = None,
    constant_steps: int = 0,
    input_tau: float = 1.0,
) -> KernelSpec:
    """The spec of a layer; pool_gain as in `FusionContext`, the last two as in `ConstantInput`."""
    surrogate, width, extra = _surrogate_numbers(rule, dynamics.threshold)
    return KernelSpec(
        dynamics.membrane_decay,
        dynamics.synaptic_decay,
        float(numpy.float32(1) / numpy.float32(dynamics.tau_synapse)),  # the bits of torch's division of a spike
        dynamics.threshold,
        1.0 if pool_gain is None else pool_gain,
        width,
        extra,
        1 - 1 / input_tau if constant_steps else 0.0,
        input_tau,
        dynamics.reset is Reset.SOFT,
        emit,
        surrogate,
        rule.leak,
        rule.reset,
        rule.threshold,
        rule.at_resting_threshold,
        pool_gain is not None,
        constant_steps,
    )


cached_kernel_spec = lru_cache(maxsize=512)(kernel_spec)
"""`kernel_spec` with a cache, for rules that are plain values; others may hold an attack's state, kept alive by it."""


def _surrogate_numbers(rule: GradientRule, resting_threshold: float) -> tuple[int, float, float]:
    """Number, width and extra; PRECOMPUTED for another surrogate, and for a rule that differs from step to step."""
    surrogate = rule.surrogate_at(resting_threshold)
    if type(rule) is not GradientRule or type(surrogate) not in KERNEL_SURROGATES:
        return PRECOMPUTED, 1.0, 1.0
    width = float(getattr(surrogate, "width", 1.0))
    extra = math.inf
    if isinstance(surrogate, Sigmoid):
        extra = surrogate.clamp
    elif isinstance(surrogate, Exponential):
        extra = 1 / (2 * width) if surrogate.peak is None else surrogate.peak
    return KERNEL_SURROGATES.index(type(surrogate)), width, extra
