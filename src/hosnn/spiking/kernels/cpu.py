"""The fused CPU backend: a layer over all time steps in one call of native code (`neuron.c`), without copies.

Only the currents are kept for the backward, which computes membranes and thresholds again.
Shapes: T time, B batch, N neuron dimensions.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import BackendError, ShapeError
from hosnn.spiking.gradient_rule import Sharpness
from hosnn.spiking.kernels import memory
from hosnn.spiking.kernels.kernel_spec import Task
from hosnn.spiking.kernels.memory import Gradients

ENOUGH = 1 << 17
"""Element-steps below which a second thread costs more than it saves."""

FIELDS: tuple[tuple[str, Any], ...] = (
    *((name, ctypes.c_int64) for name in ("steps", "batch", "neurons", "rows", "columns", "channels", "samples")),
    *((name, ctypes.c_float) for name in ("membrane_decay", "synaptic_decay", "trace_of_spike", "rest", "gain")),
    *((name, ctypes.c_float) for name in ("input_decay", "input_tau", "relax", "width", "extra")),
    *((name, ctypes.c_int32) for name in ("soft", "emit", "bfloat16", "surrogate")),
    *((name, ctypes.c_int32) for name in ("leak", "reset", "threshold", "at_rest", "held", "learning")),
)
ARRAYS = (
    *("currents", "signature", "adaptation", "derivative", "gradient", "output"),
    *("adaptation_gradient", "signature_gradient", "membrane_sum", "current_sum"),
    *("mean", "deviation", "rows", "keep", "scale"),
)


class _Neuron(ctypes.Structure):
    _fields_ = FIELDS


class _Arrays(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ARRAYS)


@cache
def library() -> ctypes.CDLL | None:
    """The native code, None where it was not built or does not load.

    The environment variable HOSNN_NATIVE names another build of it, one with sanitizers, say.
    """
    named = os.environ.get("HOSNN_NATIVE")
    if named and not Path(named).exists():
        raise BackendError(
            f"HOSNN_NATIVE names {named}, which is not there; unset it to use the kernel built with hosnn"
        )
    beside = [Path(__file__).with_name(f"_neuron{suffix}") for suffix in EXTENSION_SUFFIXES]
    for path in [Path(named)] if named else beside:
        if path.exists():
            try:
                return _declared(ctypes.CDLL(str(path)))
            except (OSError, AttributeError):
                return None
    return None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    """The library with its types.  Raises AttributeError for one that was built from other source."""
    found.hosnn_structures.restype = ctypes.c_int64
    if found.hosnn_structures() != 1000 * ctypes.sizeof(_Neuron) + ctypes.sizeof(_Arrays):
        raise AttributeError("built from other source")
    pointers: list[Any] = [ctypes.POINTER(_Neuron), ctypes.POINTER(_Arrays)]
    found.hosnn_units.argtypes, found.hosnn_units.restype = pointers[:1], ctypes.c_int64
    for name in ("hosnn_forward", "hosnn_backward", "hosnn_sharpness"):
        function = getattr(found, name)
        function.argtypes, function.restype = [*pointers, ctypes.c_int64, ctypes.c_int64], ctypes.c_int
    return found


def forward(task: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None) -> Tensor:
    """What the layer emits: [T, B, *N], or [T, B, C, H/2, W/2] if pooled.

    currents    [T, B, *N], float32 or bfloat16, [1, B, *N] if held; if pooled [T, B, C, H, W], channels last in memory
    signature   [T, *N], or what broadcasts to [*N] at each step; None for plain LIF
    adaptation  broadcastable to [*N]
    Arrays of another layout in memory are copied into that of the currents.
    """
    currents = memory.laid_out(currents, task.pooled)
    output = memory.shaped(task, currents)
    arrays = memory.inputs(task, currents, signature, adaptation) | {"output": output}
    _call("hosnn_forward", task, currents, arrays)
    return output


def backward(
    task: Task,
    gradient: Tensor,
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None = None,
    wanted: Sequence[str] = (),
    spent: bool = False,
) -> Gradients:
    """The gradients of `forward`.

    derivative  the surrogate's h [T, B, *N] for Task.surrogate = GIVEN
    wanted      further fields of `Gradients` than currents
    spent       the currents' gradient may be written over the currents, of which each is read before
    """
    currents = memory.laid_out(currents, task.pooled)
    odd = task.pooled and (currents.shape[-1] % 2 or currents.shape[-2] % 2)
    if odd:  # what no window covers gets no gradient, and no kernel goes there
        output = torch.zeros_like(currents)
    elif spent:
        output = currents.detach()
        torch.autograd.graph.increment_version(output)  # whoever saved them after all gets an error, not garbage
    else:
        output = torch.empty_like(currents)
    arrays = memory.inputs(task, currents, signature, adaptation) | {
        "output": output,
        **memory.upstream(task, currents, gradient, derivative),
    }
    sums = {name: memory.summed(task, currents, name).zero_() for name in wanted}
    arrays |= {name if name.endswith("_sum") else f"{name}_gradient": value for name, value in sums.items()}
    _call("hosnn_backward", task, currents, arrays)
    return Gradients(output, *map(sums.get, Gradients._fields[1:]))


def sharpness(
    task: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None, told: Sharpness
) -> Tensor:
    """ASSG's surrogate derivative h [T, B, *N] at these currents; what is remembered is brought up to date.

    task  emits distances, not pooled
    """
    order = (*currents.stride()[:2], *told.mean.stride()[2:])
    if currents.stride() != order or not memory.dense(currents):
        currents = memory.room(told.mean, *currents.shape[:2], dtype=currents.dtype).copy_(currents)
    steps, batch = memory.lengths(task, currents)
    output = memory.room(currents, steps, batch, dtype=currents.dtype)
    arrays = memory.inputs(task, currents, signature, adaptation) | {
        "output": output,
        "mean": told.mean,
        "deviation": told.deviation,
        "rows": told.rows.to(torch.int64).contiguous(),
        "keep": told.keep.to(torch.float32).contiguous(),
        "scale": told.scale.to(torch.float32).expand(batch).contiguous(),
    }
    remembered = {"samples": told.mean.shape[1], "relax": told.relax, "learning": told.learning}
    _call("hosnn_sharpness", task, currents, arrays, **remembered)
    return output


def room_to_remember(task: Task, currents: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """M and D of `sharpness` before anything was seen, in the memory order of these currents."""
    shape = (memory.lengths(task, currents)[0], samples)
    currents = memory.laid_out(currents)
    return memory.room(currents, *shape).zero_(), memory.room(currents, *shape).zero_()


def _call(name: str, task: Task, currents: Tensor, arrays: dict[str, Tensor | None], **more: float) -> None:
    native = library()
    if native is None:
        raise BackendError("the native kernel is not there; `hosnn doctor` says why and what to do")
    if not currents.numel():
        return
    lengths = memory.lengths(task, currents)
    backward = "gradient" in arrays
    neuron, sizes = _neuron(task, *lengths, currents.shape[2:], currents.dtype == torch.bfloat16, backward, **more)
    _check_sizes(sizes, arrays)
    given = _Arrays(**{key: None if value is None else value.data_ptr() for key, value in arrays.items()})
    _in_parallel(getattr(native, name), neuron, given, native.hosnn_units(neuron), currents.numel())


@lru_cache
def _neuron(
    task: Task, steps: int, batch: int, shape: torch.Size, bfloat16: bool, backward: bool, **more: float
) -> tuple[_Neuron, dict[str, int]]:
    """What the native code is told of a layer, and how many numbers it then takes each array to have."""
    channels, rows, columns = shape if task.pooled else (0, 0, 0)
    values = {key: value for key, value in task._asdict().items() if key != "pooled"}
    size = {"neurons": shape.numel(), "rows": rows, "columns": columns, "channels": channels}
    neuron = _Neuron(steps=steps, batch=batch, bfloat16=bfloat16, **size, **values, **more)
    return neuron, _sizes(neuron, backward)


def _sizes(neuron: _Neuron, backward: bool) -> dict[str, int]:
    all_steps = neuron.steps * neuron.batch * neuron.neurons
    currents = neuron.batch * neuron.neurons if neuron.held else all_steps
    pooled = neuron.steps * neuron.batch * (neuron.rows // 2) * (neuron.columns // 2) * neuron.channels
    remembered = neuron.steps * neuron.samples * neuron.neurons
    return {
        "currents": currents,
        "output": currents if backward else pooled if neuron.channels else all_steps,
        "gradient": pooled if neuron.channels else all_steps,
        "derivative": all_steps,
        **dict.fromkeys(("signature", "signature_gradient"), neuron.steps * neuron.neurons),
        **dict.fromkeys(("adaptation", "adaptation_gradient", "membrane_sum", "current_sum"), neuron.neurons),
        **dict.fromkeys(("mean", "deviation"), remembered),
        **dict.fromkeys(("rows", "keep", "scale"), neuron.batch),
    }


def _check_sizes(sizes: dict[str, int], arrays: dict[str, Tensor | None]) -> None:
    """Native code believes what it is told: no array may be smaller than that."""
    for name, value in arrays.items():
        if value is not None and value.numel() != sizes[name]:
            raise ShapeError(f"the native kernel got {name} {tuple(value.shape)}; expected {sizes[name]} numbers")


def _in_parallel(function: Callable[..., int], neuron: _Neuron, arrays: _Arrays, units: int, size: int) -> None:
    """Units of work on as many threads as torch would use; each neuron's sums stay on one thread, in one order."""
    threads = min(torch.get_num_threads(), units) if size >= ENOUGH else 1
    if threads <= 1:
        if function(neuron, arrays, 0, units):
            raise _no_memory(neuron, units)
        return
    cuts = [units * part // threads for part in range(threads + 1)]
    shares = [(neuron, arrays, begin, end) for begin, end in pairwise(cuts)]
    others = [_pool().submit(function, *share) for share in shares[1:]]
    try:
        failed = function(*shares[0])
    finally:
        wait(others)  # interrupted or not: they write into arrays that must not be given back before
    if failed or any(other.result() for other in others):
        raise _no_memory(neuron, units)


def _no_memory(neuron: _Neuron, units: int) -> MemoryError:
    return MemoryError(f"no memory for {neuron.steps} time steps of {units} units")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="hosnn")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
