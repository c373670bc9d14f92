"""The fused GPU backend: a layer over all time steps in one kernel (`triton_kernels`), as `cpu` on a CPU.

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
from hosnn.spiking.kernels import declarations, memory
from hosnn.spiking.kernels.kernel_spec import KernelSpec
from hosnn.spiking.kernels.memory import Gradients
from hosnn.spiking.state import Threshold

MAX_UNROLLED, CHUNK = 16, 8
"""Time steps that a kernel unrolls: all of them up to MAX_UNROLLED, else CHUNK at a time."""

WARPS = 4
MIN_PROGRAMS = 2048
"""Programs that keep the largest GPUs busy: 16 on each of some 130 multiprocessors."""

NUM_STATES = 2
"""State variables of a neuron, v and θ."""

MAX_SPLITS = 65535
"""The largest second dimension of a launch."""


@cache
def kernels() -> ModuleType | None:
    """The module of kernels; None if Triton is not installed."""
    try:
        from hosnn.spiking.kernels import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def available() -> bool:
    """Whether Triton is installed; it compiles for any GPU that torch calls CUDA."""
    return kernels() is not None


def forward(spec: KernelSpec, currents: Tensor, threshold: Threshold, initial: Tensor | None = None) -> Tensor:
    """The layer's output; arguments as in `cpu.forward`."""
    if spec.constant_steps:
        over_time = _constant_currents(spec, currents, initial)
        return forward(spec._replace(constant_steps=0), over_time, threshold).to(currents.dtype)
    currents = memory.laid_out(currents, spec.pooled)
    steps, batch = memory.steps_and_batch(spec, currents)
    output = memory.empty_output(spec, currents)
    target, adaptation, _ = memory.parameters(spec, currents, threshold, None)
    if output.numel():
        lanes = 32 * WARPS * (1 if spec.pooled else 4 if steps <= CHUNK else 2)
        outputs = output[0, 0].numel()
        arguments = {
            "currents": currents,
            "target": target,
            "adaptation": adaptation,
            "output": output,
            "outputs": outputs,
            "EMIT": int(spec.emit),
            "BLOCK": lanes,
        }
        grid = -(-outputs // lanes), min(batch, MAX_SPLITS)
        _launch("forward", grid, spec, currents, arguments)
    return output


def backward(
    spec: KernelSpec,
    gradient: Tensor,
    currents: Tensor,
    threshold: Threshold,
    initial: Tensor | None = None,
    derivative: Tensor | None = None,
    wanted: Sequence[str] = (),
) -> Gradients:
    """The gradients of `forward`; arguments as in `cpu.backward`.

    A program sums over time and one of `splits` parts of the batch, torch over these: always in the same order.
    """
    if spec.constant_steps:
        over_time, spec_over_time = _constant_currents(spec, currents, initial), spec._replace(constant_steps=0)
        names = [name for name in wanted if name != "initial"]
        gradients = backward(spec_over_time, gradient, over_time, threshold, None, derivative, names)
        to_input, to_initial = _constant_currents_backward(spec, gradients.currents)
        initial_gradient = to_initial if "initial" in wanted else None
        return gradients._replace(currents=to_input.to(currents.dtype), initial=initial_gradient)
    currents = memory.laid_out(currents, spec.pooled)
    steps, batch = memory.steps_and_batch(spec, currents)
    neurons = math.prod(currents.shape[2:])
    output = torch.empty_like(currents)
    lanes = 32 * WARPS * (2 if steps <= CHUNK else 1)
    blocks = -(-neurons // lanes)
    chunks = -(-steps // _chunk_length(steps))
    splits = _splits(batch, blocks) if wanted or chunks > 1 else min(batch, MAX_SPLITS)
    sums = {name: memory.empty_sum(spec, currents, name) for name in wanted}
    by_split = {name: currents.new_zeros((splits, total.numel()), dtype=torch.float32) for name, total in sums.items()}
    if currents.numel():
        if derivative is not None:
            derivative = memory.in_memory_order(derivative.to(currents.dtype), currents, steps, batch)
        target, adaptation, _ = memory.parameters(spec, currents, threshold, None)
        arguments: dict[str, Any] = {
            "currents": currents,
            "target": target,
            "adaptation": adaptation,
            "derivative": derivative,
            "gradient": memory.upstream_gradient(spec, currents, gradient),
            "output": output,
            "states": None,
        }
        if chunks > 1:
            arguments["states"] = currents.new_empty((chunks, NUM_STATES, splits, blocks, lanes), dtype=torch.float32)
        for name in ("adaptation", "target", "membrane_sum", "current_sum"):
            arguments[name if name.endswith("_sum") else f"{name}_sum"] = by_split.get(name)
        constants = {
            "outputs": gradient[0, 0].numel(),
            "rows": currents.shape[-2] if spec.pooled else 1,
            "width": spec.width,
            "extra": spec.extra,
            "EMIT": int(spec.emit),
            "SURROGATE": int(spec.surrogate),
            "LEAK_OPEN": bool(spec.leak),
            "RESET_OPEN": bool(spec.reset),
            "THRESHOLD_OPEN": bool(spec.threshold),
            "BLOCK": lanes,
        }
        _launch("backward", (blocks, splits), spec, currents, arguments | constants)
    for name, total in sums.items():
        torch.sum(by_split[name], 0, out=total.as_strided((total.numel(),), (1,)))  # in memory order
    return Gradients(output, **sums)


def _constant_currents(spec: KernelSpec, constant: Tensor, initial: Tensor | None) -> Tensor:
    """The currents [T, B, *N], float32, of a `ConstantInput` [1, B, *N]."""
    constant = memory.laid_out(constant, spec.pooled)
    currents = memory.empty(constant, *memory.steps_and_batch(spec, constant))
    rise = constant[0].float() / spec.input_tau
    current = torch.zeros_like(rise) if initial is None else initial.to(rise).expand_as(rise)
    for t in range(len(currents)):
        current = spec.input_decay * current + rise
        currents[t] = current
    return currents


def _constant_currents_backward(spec: KernelSpec, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """dL/d input [1, B, *N] and dL/d initial [*N] from dL/d currents [T, B, *N]."""
    to_current = total = torch.zeros_like(gradient[:1])
    for t in reversed(range(len(gradient))):
        to_current = spec.input_decay * to_current + gradient[t]
        total = total + to_current
    return total / spec.input_tau, (spec.input_decay * to_current).sum((0, 1))


def _chunk_length(steps: int) -> int:
    """Time steps of a chunk, see `MAX_UNROLLED`."""
    return steps if steps <= MAX_UNROLLED else CHUNK


def _splits(batch: int, blocks: int) -> int:
    """The number of parts that the batch is divided into, each summed by one program per block of neurons."""
    return max(1, min(batch, -(-MIN_PROGRAMS // max(1, blocks)), MAX_SPLITS))


def _launch(name: str, grid: tuple[int, int], spec: KernelSpec, currents: Tensor, arguments: dict[str, Any]) -> None:
    module = kernels()
    if module is None:
        raise BackendError("Triton is not installed, which the kernels for GPUs need; `pip install triton`")
    threshold = "FIXED" if arguments["target"] is None else "STATIC" if arguments["adaptation"] is None else "ADAPTIVE"
    steps, batch = memory.steps_and_batch(spec, currents)
    channels, _, columns = currents.shape[2:] if spec.pooled else (1, 1, 1)
    with torch.cuda.device_of(currents):  # type: ignore[no-untyped-call]
        getattr(module, name)[grid](
            **arguments,
            batch=batch,
            neurons=currents[0, 0].numel(),
            columns=columns,
            channels=channels,
            membrane_decay=spec.membrane_decay,
            synaptic_decay=spec.synaptic_decay,
            spike_increment=spec.spike_increment,
            resting_threshold=spec.resting_threshold,
            gain=spec.gain,
            STEPS=steps,
            CHUNK=_chunk_length(steps),
            THRESHOLD=declarations.THRESHOLDS[threshold],
            SOFT=bool(spec.soft),
            AT_RESTING_THRESHOLD=bool(spec.at_resting_threshold),
            POOLED=bool(spec.pooled),
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
