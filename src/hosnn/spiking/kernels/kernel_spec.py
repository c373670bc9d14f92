"""What a fused kernel is told: a layer's constants and its gradient rule as plain numbers.

The numbers of the enumerations are those of `neuron.c`.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy

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
    """What comes out.

    TRACES    a, the synaptic traces
    SPIKES    s
    DISTANCE  to the threshold, u - θ; to that at rest if the rule looks there
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
"""Any other surrogate: its derivative is computed outside and handed in as a tensor."""


NUMBERS = 9
"""Fields of `Task` that are real numbers; they come first."""


class Task(NamedTuple):
    """Everything a kernel is told besides arrays.

    extra   the Sigmoid's clamp or the Exponential's peak
    pooled  the output is gain times the mean over windows of 2 x 2
    held    0, or the number of time steps that one input [1, B, *N] is held behind a synaptic filter
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
    held: int

    @property
    def numbers(self) -> list[float]:
        return [float(value) for value in self[:NUMBERS]]

    @property
    def switches(self) -> list[int]:
        return [int(value) for value in self[NUMBERS:]]

    @classmethod
    def unpacked(cls, numbers: Sequence[float], switches: Sequence[int]) -> "Task":
        return cls(*numbers, *switches)  # type: ignore[arg-type]


class Held(NamedTuple):
    """An input that stays for some time steps, behind a synaptic filter (`hosnn.spiking.coding.encode_constant`)."""

    steps: int
    tau_synapse: float


class Around(NamedTuple):
    """What stands around a layer, which its kernel can do, or use, on the way.

    gain   pool afterwards: gain times the mean over windows of 2 x 2, [.., C, H, W] -> [.., C, H // 2, W // 2]
    held   the currents are one input [1, B, *N], held for some time steps behind a synaptic filter
    spent  nobody else reads the currents: a backward that keeps no graph may write their gradient over them
    """

    gain: float | None = None
    held: Held | None = None
    spent: bool = False


ALONE = Around()


def task(
    dynamics: Dynamics, rule: GradientRule, emit: Emitted, gain: float | None = None, held: Held | None = None
) -> Task:
    """gain  of the mean over windows of 2 x 2; None: no pooling"""
    shape, width, extra = _surrogate(rule)
    return Task(
        dynamics.membrane_decay,
        dynamics.synaptic_decay,
        float(numpy.float32(1) / numpy.float32(dynamics.tau_synapse)),  # as torch divides a spike
        dynamics.threshold,
        1.0 if gain is None else gain,
        width,
        extra,
        1 - 1 / held.tau_synapse if held else 0.0,
        held.tau_synapse if held else 1.0,
        dynamics.reset is Reset.SOFT,
        emit,
        shape,
        rule.leak,
        rule.reset,
        rule.threshold,
        rule.at_resting_threshold,
        gain is not None,
        held.steps if held else 0,
    )


def _surrogate(rule: GradientRule) -> tuple[int, float, float]:
    """Number, width and extra; GIVEN for a shape of its own, and for a rule that is another at every step."""
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
