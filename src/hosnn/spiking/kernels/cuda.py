"""The fused GPU backend: a layer over all time steps in one kernel (`triton_kernels`), as `cpu` does on a processor.

Only the currents are kept for the backward, which computes membranes and thresholds again.
Shapes: T time, B batch, N neuron dimensions.
"""

import math
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.spiking.kernels import memory
from hosnn.spiking.kernels.kernel_spec import Task
from hosnn.spiking.kernels.memory import Gradients

LONGEST, CHUNK = 16, 8
"""Time steps that are unrolled: all of them up to LONGEST, else CHUNK at a time."""

WARPS = 4
PROGRAMS = 2048
"""Enough to keep the largest GPUs busy: 16 on each of some 130 multiprocessors."""

STATES = 2
"""v and θ."""

MOST_SPLITS = 65535
"""What the second dimension of a launch can hold."""


@cache
def kernels() -> ModuleType | None:
    """The kernels, None where there is no Triton."""
    try:
        from hosnn.spiking.kernels import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def available() -> bool:
    """Whether there is Triton; it compiles for any GPU that torch calls CUDA."""
    return kernels() is not None


def forward(task: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None) -> Tensor:
    """What the layer emits; arguments as in `cpu.forward`."""
    if task.held:
        return forward(task._replace(held=0), _at_every_step(task, currents), signature, adaptation).to(currents.dtype)
    currents = memory.laid_out(currents, task.pooled)
    steps, batch = memory.lengths(task, currents)
    output = memory.shaped(task, currents)
    arrays = memory.inputs(task, currents, signature, adaptation) | {"output": output}
    if output.numel():
        lanes = 32 * WARPS * (1 if task.pooled else 4 if steps <= CHUNK else 2)
        emitting = output[0, 0].numel()
        constants = {"outputs": emitting, "EMIT": int(task.emit), "BLOCK": lanes}
        grid = -(-emitting // lanes), min(batch, MOST_SPLITS)
        _launch("forward", grid, task, currents, arrays | constants)
    return output


def backward(
    task: Task,
    gradient: Tensor,
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None = None,
    wanted: Sequence[str] = (),
) -> Gradients:
    """The gradients of `forward`; arguments as in `cpu.backward`.

    A program sums over time and a split of the batch, torch over the splits: in one order always.
    """
    if task.held:
        spread, told = _at_every_step(task, currents), task._replace(held=0)
        found = backward(told, gradient, spread, signature, adaptation, derivative, wanted)
        return found._replace(currents=_of_held(task, found.currents).to(currents.dtype))
    currents = memory.laid_out(currents, task.pooled)
    steps, batch = memory.lengths(task, currents)
    neurons = math.prod(currents.shape[2:])
    output = torch.empty_like(currents)
    lanes = 32 * WARPS * (2 if steps <= CHUNK else 1)
    blocks = -(-neurons // lanes)
    chunks = -(-steps // _unrolled(steps))
    splits = _splits(batch, blocks) if wanted or chunks > 1 else min(batch, MOST_SPLITS)
    sums = {name: memory.summed(task, currents, name) for name in wanted}
    parts = {name: currents.new_zeros((splits, total.numel()), dtype=torch.float32) for name, total in sums.items()}
    if currents.numel():
        arrays = memory.inputs(task, currents, signature, adaptation) | {
            **memory.upstream(task, currents, gradient, derivative),
            "output": output,
            "states": None,
        }
        if chunks > 1:
            arrays["states"] = currents.new_empty((chunks, STATES, splits, blocks, lanes), dtype=torch.float32)
        for name in Gradients._fields[1:]:
            arrays[name if name.endswith("_sum") else f"{name}_sum"] = parts.get(name)
        constants = {
            "outputs": gradient[0, 0].numel(),
            "rows": currents.shape[-2] if task.pooled else 1,
            "width": task.width,
            "extra": task.extra,
            "EMIT": int(task.emit),
            "SURROGATE": int(task.surrogate),
            "LEAK": bool(task.leak),
            "RESET": bool(task.reset),
            "THRESHOLD": bool(task.threshold),
            "BLOCK": lanes,
        }
        _launch("backward", (blocks, splits), task, currents, arrays | constants)
    for name, total in sums.items():
        torch.sum(parts[name], 0, out=total.as_strided((total.numel(),), (1,)))  # in memory order
    return Gradients(output, *map(sums.get, Gradients._fields[1:]))


def _at_every_step(task: Task, held: Tensor) -> Tensor:
    """The currents [T, B, *N], float32, of an input [1, B, *N] that is held, as `coding.encode_constant` has them."""
    held = memory.laid_out(held, task.pooled)
    currents = memory.room(held, *memory.lengths(task, held))
    given = held[0].float() / task.input_tau
    current = torch.zeros_like(given)
    for t in range(len(currents)):
        current = task.input_decay * current + given
        currents[t] = current
    return currents


def _of_held(task: Task, gradient: Tensor) -> Tensor:
    """dL/d held [1, B, *N] from dL/d currents [T, B, *N]."""
    along = total = torch.zeros_like(gradient[:1])
    for t in reversed(range(len(gradient))):
        along = task.input_decay * along + gradient[t]
        total = total + along
    return total / task.input_tau


def _unrolled(steps: int) -> int:
    return steps if steps <= LONGEST else CHUNK


def _splits(batch: int, blocks: int) -> int:
    """Into how many parts the batch goes, each summed by one program per block of neurons."""
    return max(1, min(batch, -(-PROGRAMS // max(1, blocks)), MOST_SPLITS))


def _launch(name: str, grid: tuple[int, int], task: Task, currents: Tensor, arguments: dict[str, Any]) -> None:
    found = kernels()
    if found is None:
        raise BackendError("there is no Triton here, which the kernels for GPUs need; `pip install triton`")
    steps, batch = memory.lengths(task, currents)
    channels, _, columns = currents.shape[2:] if task.pooled else (1, 1, 1)
    with torch.cuda.device_of(currents):  # type: ignore[no-untyped-call]
        getattr(found, name)[grid](
            **arguments,
            batch=batch,
            neurons=currents[0, 0].numel(),
            columns=columns,
            channels=channels,
            decay=task.membrane_decay,
            fade=task.synaptic_decay,
            jump=task.trace_of_spike,
            rest=task.rest,
            gain=task.gain,
            STEPS=steps,
            CHUNK=_unrolled(steps),
            ADAPTIVE=arguments["signature"] is not None,
            SOFT=bool(task.soft),
            AT_REST=bool(task.at_rest),
            POOLED=bool(task.pooled),
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
