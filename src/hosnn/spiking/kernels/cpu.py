"""The fused CPU backend: a layer over all time steps in one call of native code (`neuron.c`), without copies.

Only the currents are kept for the backward, which computes membranes and thresholds again.
Shapes: T time, B batch, N neuron dimensions.
"""

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.spiking.gradient import Sharpness
from hosnn.spiking.kernels.task import Task

DTYPES = (torch.float32, torch.bfloat16)
"""Of currents and outputs.  The state between time steps is float32 in either."""

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
    """The native code, None where it was not built or does not load."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_neuron{suffix}")
        if path.exists():
            try:
                return _declared(ctypes.CDLL(str(path)))
            except (OSError, AttributeError):
                return None
    return None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
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
    currents = laid_out(currents, task.pooled)
    output = shaped(task, currents)
    arrays = _inputs(task, currents, signature, adaptation) | {"output": output}
    _call("hosnn_forward", task, currents, arrays)
    return output


class Gradients(NamedTuple):
    """currents [T, B, *N]; adaptation [*N], summed over time and batch; signature [T, *N]; the sums of membrane and of
    the currents' gradient over time and batch [*N] that the local rule for k needs.  None where not asked for."""

    currents: Tensor
    adaptation: Tensor | None
    signature: Tensor | None
    membrane_sum: Tensor | None
    current_sum: Tensor | None


def backward(
    task: Task,
    gradient: Tensor,
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None = None,
    wanted: Sequence[str] = (),
) -> Gradients:
    """The gradients of `forward`.

    derivative  the surrogate's h [T, B, *N] for Task.surrogate = GIVEN
    wanted      further fields of `Gradients` than currents
    """
    currents = laid_out(currents, task.pooled)
    steps, batch = _lengths(task, currents)
    odd = task.pooled and (currents.shape[-1] % 2 or currents.shape[-2] % 2)
    output = torch.zeros_like(currents) if odd else torch.empty_like(currents)
    gradient = gradient.to(currents.dtype)
    arrays = _inputs(task, currents, signature, adaptation) | {
        "output": output,
        "gradient": laid_out(gradient, True) if task.pooled else _placed(gradient, currents, steps, batch),
        "derivative": None if derivative is None else _placed(derivative.to(currents.dtype), currents, steps, batch),
    }
    sums = {name: summed(task, currents, name).zero_() for name in wanted}
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
    if currents.stride() != order or not _dense(currents):
        currents = _room(told.mean, *currents.shape[:2], dtype=currents.dtype).copy_(currents)
    steps, batch = _lengths(task, currents)
    output = _room(currents, steps, batch, dtype=currents.dtype)
    arrays = _inputs(task, currents, signature, adaptation) | {
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
    shape = (_lengths(task, currents)[0], samples)
    currents = laid_out(currents)
    return _room(currents, *shape).zero_(), _room(currents, *shape).zero_()


def laid_out(currents: Tensor, channels_last: bool = False) -> Tensor:
    """The currents without gaps in memory, time and batch outermost, neurons in any order; themselves if they are.

    channels_last  [T, B, C, H, W] with the channels innermost
    """
    if channels_last:
        return currents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return currents if _dense(currents) else currents.contiguous()


def _dense(currents: Tensor) -> bool:
    """Whether [T, B, *N] has no gaps and T and B vary slowest."""
    size = 1
    for stride, length in sorted((s, n) for s, n in zip(currents.stride()[2:], currents.shape[2:], strict=True)):
        if length != 1:
            if stride != size:
                return False
            size *= length
    steps, batch = currents.shape[:2]
    return (batch == 1 or currents.stride(1) == size) and (steps == 1 or currents.stride(0) == size * batch)


def _lengths(task: Task, currents: Tensor) -> tuple[int, int]:
    """T and B."""
    return task.held or len(currents), currents.shape[1]


def _strides(currents: Tensor, lead: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array [*lead, *N] without gaps, its neurons in the memory order of the currents'."""
    outer, size = [], math.prod(currents.shape[2:])
    for length in reversed(lead):
        outer.append(size)
        size *= length
    return (*reversed(outer), *currents.stride()[2:])


def _room(currents: Tensor, *lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An array [*lead, *N] with such strides, not filled."""
    shape = (*lead, *currents.shape[2:])
    return torch.empty_strided(shape, _strides(currents, lead), dtype=dtype, device=currents.device)


def _placed(value: Tensor, currents: Tensor, *lead: int) -> Tensor:
    """`value` [*lead, *N] with such strides; itself if it has them."""
    if value.stride() == _strides(currents, lead):
        return value
    return _room(currents, *lead, dtype=value.dtype).copy_(value)


def _inputs(
    task: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None
) -> dict[str, Tensor | None]:
    if signature is None or adaptation is None:
        return {"currents": currents, "signature": None, "adaptation": None}
    steps, neurons = _lengths(task, currents)[0], currents.shape[2:]
    ones = [1] * (
        1 + len(neurons) - signature.dim()
    )  # u*[t] broadcasts to the neurons from the right, time stays first
    aligned = signature.to(torch.float32).view(len(signature), *ones, *signature.shape[1:])
    return {
        "currents": currents,
        "signature": _placed(aligned.expand(steps, *neurons), currents, steps),
        "adaptation": _placed(adaptation.to(torch.float32).expand(neurons), currents),
    }


def shaped(task: Task, currents: Tensor) -> Tensor:
    """Room for what `forward` emits."""
    steps, batch = _lengths(task, currents)
    if not task.pooled:
        return _room(currents, steps, batch, dtype=currents.dtype)
    channels, rows, columns = currents.shape[2:]
    return currents.new_empty(steps, batch, rows // 2, columns // 2, channels).permute(0, 1, 4, 2, 3)


def summed(task: Task, currents: Tensor, name: str) -> Tensor:
    """Room for a sum over the batch that `backward` was asked for."""
    return _room(currents, *([_lengths(task, currents)[0]] if name == "signature" else []))


def _call(name: str, task: Task, currents: Tensor, arrays: dict[str, Tensor | None], **more: float) -> None:
    native = library()
    if native is None:
        raise BackendError("the native kernel is not there; `hosnn doctor` says why and what to do")
    if not currents.numel():
        return
    steps, batch = _lengths(task, currents)
    channels, rows, columns = currents.shape[2:] if task.pooled else (0, 0, 0)
    values = {key: value for key, value in task._asdict().items() if key != "pooled"}
    neuron = _Neuron(
        steps=steps,
        batch=batch,
        neurons=currents[0, 0].numel(),
        rows=rows,
        columns=columns,
        channels=channels,
        bfloat16=currents.dtype == torch.bfloat16,
        **values,
        **more,
    )
    given = _Arrays(**{key: None if value is None else value.data_ptr() for key, value in arrays.items()})
    _in_parallel(getattr(native, name), neuron, given, native.hosnn_units(neuron), currents.numel())


def _in_parallel(function: Callable[..., int], neuron: _Neuron, arrays: _Arrays, units: int, size: int) -> None:
    """Units of work on as many threads as torch would use; each neuron's sums stay on one thread, in one order."""
    threads = min(torch.get_num_threads(), units) if size >= ENOUGH else 1
    cuts = [units * part // threads for part in range(threads + 1)]
    shares = [(neuron, arrays, begin, end) for begin, end in pairwise(cuts)]
    others = [_pool().submit(function, *share) for share in shares[1:]]
    failed = function(*shares[0])
    for other in others:
        failed |= other.result()
    if failed:
        raise MemoryError(f"no memory for {neuron.steps} time steps of {units} units")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="hosnn")
