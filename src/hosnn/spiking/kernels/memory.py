"""How arrays of a layer lie in memory, the same for every fused kernel: time and batch outermost, then the neurons.

Shapes: T time, B batch, N neuron dimensions.  "Their memory order" is the order in which a layer's neurons follow one
another: as in the shape, or with channels last.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hosnn.errors import ShapeError
from hosnn.spiking.kernels.kernel_spec import Task

DTYPES = (torch.float32, torch.bfloat16)
"""Of currents and outputs.  The state between time steps is float32 in either."""


class Gradients(NamedTuple):
    """currents [T, B, *N]; adaptation [*N], summed over time and batch; signature [T, *N]; the sums of membrane and of
    the currents' gradient over time and batch [*N] that the local rule for k needs.  None where not asked for."""

    currents: Tensor
    adaptation: Tensor | None
    signature: Tensor | None
    membrane_sum: Tensor | None
    current_sum: Tensor | None


def laid_out(currents: Tensor, channels_last: bool = False) -> Tensor:
    """The currents without gaps in memory, time and batch outermost, neurons in any order; themselves if they are.

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


def lengths(task: Task, currents: Tensor) -> tuple[int, int]:
    """T and B."""
    return task.held or len(currents), currents.shape[1]


def strides(currents: Tensor, lead: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array [*lead, *N] without gaps, its neurons in the memory order of the currents'."""
    outer, size = [], math.prod(currents.shape[2:])
    for length in reversed(lead):
        outer.append(size)
        size *= length
    return (*reversed(outer), *currents.stride()[2:])


def room(currents: Tensor, *lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An array [*lead, *N] with such strides, not filled."""
    shape = (*lead, *currents.shape[2:])
    return torch.empty_strided(shape, strides(currents, lead), dtype=dtype, device=currents.device)


def placed(value: Tensor, currents: Tensor, *lead: int) -> Tensor:
    """`value` [*lead, *N] with such strides; itself if it has them."""
    alike = value.shape == currents.shape and value.stride() == currents.stride()  # quick to ask, and mostly so
    if alike or value.stride() == strides(currents, lead):
        return value
    return room(currents, *lead, dtype=value.dtype).copy_(value)


def inputs(
    task: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None
) -> dict[str, Tensor | None]:
    if signature is None or adaptation is None:
        return {"currents": currents, "signature": None, "adaptation": None}
    steps, neurons = lengths(task, currents)[0], currents.shape[2:]
    if _fits(signature, currents, steps) and _fits(adaptation, currents):
        return {"currents": currents, "signature": signature, "adaptation": adaptation}
    # u*[t] broadcasts to the neurons from the right, time stays first
    ones = [1] * (1 + len(neurons) - signature.dim())
    if len(signature) < steps:
        raise ShapeError(
            f"a layer got {steps} time steps and a signature of {len(signature)}; calibrate at {steps} steps"
        )
    aligned = signature[:steps].to(torch.float32).reshape(steps, *ones, *signature.shape[1:])
    return {
        "currents": currents,
        "signature": placed(aligned.expand(steps, *neurons), currents, steps),
        "adaptation": placed(adaptation.to(torch.float32).expand(neurons), currents),
    }


def _fits(value: Tensor, currents: Tensor, *lead: int) -> bool:
    """Whether a kernel can read this as [*lead, *N] float32 as it is."""
    if value.dtype != torch.float32 or value.shape != (*lead, *currents.shape[2:]):
        return False
    return value.is_contiguous() if currents.is_contiguous() else value.stride() == strides(currents, lead)


def shaped(task: Task, currents: Tensor) -> Tensor:
    """Room for what `forward` emits."""
    steps, batch = lengths(task, currents)
    if not task.pooled:
        return room(currents, steps, batch, dtype=currents.dtype) if task.held else torch.empty_like(currents)
    channels, rows, columns = currents.shape[2:]
    return currents.new_empty(steps, batch, rows // 2, columns // 2, channels).permute(0, 1, 4, 2, 3)


def upstream(task: Task, currents: Tensor, gradient: Tensor, derivative: Tensor | None) -> dict[str, Tensor | None]:
    """The gradient of what `shaped` gave room for, and a surrogate's derivative handed in, as kernels read them."""
    lead = lengths(task, currents)
    gradient = gradient.to(currents.dtype)
    return {
        "gradient": laid_out(gradient, True) if task.pooled else placed(gradient, currents, *lead),
        "derivative": None if derivative is None else placed(derivative.to(currents.dtype), currents, *lead),
    }


def summed(task: Task, currents: Tensor, name: str) -> Tensor:
    """Room for a sum over the batch that `backward` was asked for."""
    return room(currents, *([lengths(task, currents)[0]] if name == "signature" else []))
