"""The memory layout of a layer's arrays, the same for every fused kernel: time and batch outermost, then the neurons.

Shapes: T time, B batch, N neuron dimensions.  "Memory order" is the order of a layer's neurons in the memory of its
currents: that of their dimensions, or channels last.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hosnn.errors import ShapeError
from hosnn.spiking.kernels.kernel_spec import KernelSpec
from hosnn.spiking.state import Threshold, threshold_tensors

DTYPES = (torch.float32, torch.bfloat16)
"""Of currents and outputs.  The state between time steps is float32 in either."""


class Gradients(NamedTuple):
    """The gradients of a loss, and the sums that the local rule for k needs; None where not asked for.

    currents                   [T, B, *N], or [1, B, *N] of a constant input
    adaptation                 k [*N], summed over time and batch
    target                     u*, or a static θ [T, *N]
    initial                    state of a constant input's filter before the first step [*N]
    membrane_sum, current_sum  membrane, and gradient of the currents, summed over time and batch [*N]
    """

    currents: Tensor
    adaptation: Tensor | None = None
    target: Tensor | None = None
    initial: Tensor | None = None
    membrane_sum: Tensor | None = None
    current_sum: Tensor | None = None


class Parameters(NamedTuple):
    """A layer's arrays besides currents, float32 in memory order; `target` is u*, or a static θ where there is no k."""

    target: Tensor | None  # [T, *N]
    adaptation: Tensor | None  # k [*N]
    initial: Tensor | None  # [*N]


def laid_out(currents: Tensor, channels_last: bool = False) -> Tensor:
    """The currents in memory without gaps, time and batch outermost, neurons in any order; not copied if they are so.

    channels_last  [T, B, C, H, W] with the channels innermost
    """
    if channels_last:
        return currents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return currents if dense(currents) else currents.contiguous()


def dense(currents: Tensor) -> bool:
    """Whether [T, B, *N] has no gaps and T and B vary slowest."""
    if currents.is_contiguous():
        return True
    size = 1
    for stride, length in sorted((s, n) for s, n in zip(currents.stride()[2:], currents.shape[2:], strict=True)):
        if length != 1:
            if stride != size:
                return False
            size *= length
    steps, batch = currents.shape[:2]
    return (batch == 1 or currents.stride(1) == size) and (steps == 1 or currents.stride(0) == size * batch)


def steps_and_batch(spec: KernelSpec, currents: Tensor) -> tuple[int, int]:
    """T and B of a layer."""
    return spec.constant_steps or len(currents), currents.shape[1]


def strides(currents: Tensor, lead: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array [*lead, *N] without gaps whose neurons have the memory order of the currents."""
    outer, size = [], math.prod(currents.shape[2:])
    for length in reversed(lead):
        outer.append(size)
        size *= length
    return (*reversed(outer), *currents.stride()[2:])


def empty(currents: Tensor, *lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An array [*lead, *N] in the memory order of the currents, not filled."""
    shape = (*lead, *currents.shape[2:])
    return torch.empty_strided(shape, strides(currents, lead), dtype=dtype, device=currents.device)


def in_memory_order(value: Tensor, currents: Tensor, *lead: int) -> Tensor:
    """`value` [*lead, *N] in the memory order of the currents; not copied if it is so."""
    like_currents = value.shape == currents.shape and value.stride() == currents.stride()  # usual, and quick to check
    if like_currents or value.stride() == strides(currents, lead):
        return value
    return empty(currents, *lead, dtype=value.dtype).copy_(value)


class Layout(NamedTuple):
    """The memory layout of a layer's parameters."""

    steps: int
    neurons: tuple[int, ...]
    per_step: tuple[int, ...]  # strides of [T, *N]
    per_neuron: tuple[int, ...]  # strides of [*N]
    contiguous: bool  # whether these are the strides of contiguous arrays


@lru_cache(maxsize=1024)
def layout_of(spec: KernelSpec, shape: torch.Size, strides_of_currents: tuple[int, ...]) -> Layout:
    """The layout of parameters that go with currents of this shape and these strides."""
    currents = torch.empty_strided(shape, strides_of_currents, device="meta")
    steps = steps_and_batch(spec, currents)[0]
    return Layout(steps, tuple(shape[2:]), strides(currents, (steps,)), strides(currents, ()), currents.is_contiguous())


def parameters(spec: KernelSpec, currents: Tensor, threshold: Threshold, initial: Tensor | None) -> Parameters:
    """The arrays of a layer besides currents, as its kernel reads them."""
    target, adaptation = threshold_tensors(threshold)
    layout = layout_of(spec, currents.shape, currents.stride())
    if target is not None:
        target = _over_neurons(target, layout, layout.steps)
    if adaptation is not None:
        adaptation = _over_neurons(adaptation, layout)
    if initial is not None:
        initial = _over_neurons(initial, layout)
    return Parameters(target, adaptation, initial)


def _over_neurons(value: Tensor, layout: Layout, *lead: int) -> Tensor:
    """`value`, whose last dimensions broadcast to the neurons, as [*lead, *N] float32 in memory order."""
    shape, order = (*lead, *layout.neurons), layout.per_step if lead else layout.per_neuron
    if value.dtype == torch.float32 and value.shape == shape:
        if value.is_contiguous() if layout.contiguous else value.stride() == order:
            return value
    if lead and len(value) < lead[0]:
        raise ShapeError(
            f"a layer got {lead[0]} time steps and a signature (or thresholds) of {len(value)}; calibrate at {lead[0]} "
            "steps"
        )
    if lead:  # time stays first
        value = value[: lead[0]].reshape(*lead, *[1] * (len(shape) - value.dim()), *value.shape[1:])
    return torch.empty_strided(shape, order, device=value.device).copy_(value.expand(shape))


def empty_output(spec: KernelSpec, currents: Tensor) -> Tensor:
    """An array for the output of `forward`, not filled."""
    steps, batch = steps_and_batch(spec, currents)
    if not spec.pooled:
        if spec.constant_steps:
            return empty(currents, steps, batch, dtype=currents.dtype)
        return torch.empty_like(currents)
    channels, rows, columns = currents.shape[2:]
    return currents.new_empty(steps, batch, rows // 2, columns // 2, channels).permute(0, 1, 4, 2, 3)


def upstream_gradient(spec: KernelSpec, currents: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the output of `forward`, as the backward's kernel reads it."""
    gradient = gradient.to(currents.dtype)
    if spec.pooled:
        return laid_out(gradient, channels_last=True)
    return in_memory_order(gradient, currents, *steps_and_batch(spec, currents))


def empty_sum(spec: KernelSpec, currents: Tensor, name: str) -> Tensor:
    """An array for a field of `Gradients` that is summed over the batch, not filled."""
    return empty(currents, *([steps_and_batch(spec, currents)[0]] if name == "target" else []))
