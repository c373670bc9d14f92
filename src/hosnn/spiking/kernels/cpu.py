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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hosnn.errors import BackendError, ShapeError
from hosnn.spiking.gradient_rule import Sharpness
from hosnn.spiking.kernels import declarations, memory
from hosnn.spiking.kernels.kernel_spec import KernelSpec
from hosnn.spiking.kernels.memory import Gradients
from hosnn.spiking.state import Threshold

MIN_PARALLEL = 1 << 17
"""Elements of the currents, T x B x N, below which a second thread costs more than it saves."""


class _LayerSpec(ctypes.Structure):
    """A `KernelSpec` and the sizes of its arrays, as C has them."""

    _fields_ = declarations.fields(declarations.LAYER_SPEC)


class _Arrays(ctypes.Structure):
    _fields_ = declarations.fields(declarations.ARRAYS)


@cache
def library() -> ctypes.CDLL | None:
    """The native code; None if it was not built or cannot be loaded.

    The environment variable HOSNN_NATIVE names another build of it, e.g. one with sanitizers.
    """
    named = os.environ.get("HOSNN_NATIVE")
    if named and not Path(named).exists():
        raise BackendError(
            f"HOSNN_NATIVE names {named}, which does not exist; unset it to use the kernel built with hosnn"
        )
    beside = [Path(__file__).with_name(f"_neuron{suffix}") for suffix in EXTENSION_SUFFIXES]
    for path in [Path(named)] if named else beside:
        if path.exists():
            try:
                return _with_types(ctypes.CDLL(str(path)))
            except (OSError, AttributeError):
                return None
    return None


def _with_types(native: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions.  Raises AttributeError for one built from other declarations."""
    native.hosnn_structures.restype = ctypes.c_int64
    if native.hosnn_structures() != 1000 * ctypes.sizeof(_LayerSpec) + ctypes.sizeof(_Arrays):
        raise AttributeError("built from other declarations")
    pointers: list[Any] = [ctypes.POINTER(_LayerSpec), ctypes.POINTER(_Arrays)]
    native.hosnn_units.argtypes, native.hosnn_units.restype = pointers[:1], ctypes.c_int64
    for name in ("hosnn_forward", "hosnn_backward", "hosnn_sharpness"):
        function = getattr(native, name)
        function.argtypes, function.restype = [*pointers, ctypes.c_int64, ctypes.c_int64], ctypes.c_int
    return native


class _Call(NamedTuple):
    """What all calls of the native code with currents of one shape and memory order have in common."""

    spec: _LayerSpec
    units: int  # of work, which threads share
    laid_out: bool  # whether the kernel can read such currents without a copy
    output_shape: tuple[int, ...]
    output_strides: tuple[int, ...]
    several_threads: bool  # whether more than one is faster


@lru_cache(maxsize=1024)
def _call(spec: KernelSpec, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype, **assg: float) -> _Call:
    currents = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    output = memory.empty_output(spec, currents)
    steps, batch = memory.steps_and_batch(spec, currents)
    channels, rows, columns = shape[2:] if spec.pooled else (0, 0, 0)
    constants = {name: value for name, value in spec._asdict().items() if name != "pooled"}
    sizes = {"neurons": shape[2:].numel(), "rows": rows, "columns": columns, "channels": channels}
    native_spec = _LayerSpec(
        steps=steps,
        batch=batch,
        bfloat16=dtype == torch.bfloat16,
        **sizes,
        **constants,
        **assg,
    )
    laid_out = currents.permute(0, 1, 3, 4, 2).is_contiguous() if spec.pooled else memory.dense(currents)
    units = _native().hosnn_units(native_spec) if currents.numel() else 0
    return _Call(native_spec, units, laid_out, tuple(output.shape), output.stride(), currents.numel() >= MIN_PARALLEL)


def forward(spec: KernelSpec, currents: Tensor, threshold: Threshold, initial: Tensor | None = None) -> Tensor:
    """The layer's output: [T, B, *N], or [T, B, C, H/2, W/2] if pooled.

    currents   [T, B, *N], float32 or bfloat16; [1, B, *N] if constant; [T, B, C, H, W] if pooled, best channels last
    initial    of a `ConstantInput`, broadcastable to [*N]
    Arrays of another memory order are copied into that of the currents.
    """
    call = _call(spec, currents.shape, currents.stride(), currents.dtype)
    if not call.laid_out:
        return forward(spec, memory.laid_out(currents, spec.pooled), threshold, initial)
    output = torch.empty_strided(call.output_shape, call.output_strides, dtype=currents.dtype)
    target, adaptation, initial = memory.parameters(spec, currents, threshold, initial)
    arrays = _arrays(currents=currents, target=target, adaptation=adaptation, initial=initial, output=output)
    function = _native().hosnn_forward
    if call.several_threads and torch.get_num_threads() > 1:
        _in_parallel(function, call.spec, arrays, call.units)
    elif function(call.spec, arrays, 0, call.units):
        raise _no_memory(call.spec, call.units)
    return output


def backward(
    spec: KernelSpec,
    gradient: Tensor,
    currents: Tensor,
    threshold: Threshold,
    initial: Tensor | None = None,
    derivative: Tensor | None = None,
    wanted: Sequence[str] = (),
    input_reusable: bool = False,
) -> Gradients:
    """The gradients of `forward`.

    gradient        of the output of `forward`
    derivative      the surrogate's h [T, B, *N], if KernelSpec.surrogate is PRECOMPUTED
    wanted          fields of `Gradients` to compute besides currents
    input_reusable  the currents' gradient may be written over the currents
    """
    currents = memory.laid_out(currents, spec.pooled)
    call = _call(spec, currents.shape, currents.stride(), currents.dtype)
    if tuple(gradient.shape) != call.output_shape:
        raise ShapeError(
            f"the native kernel got a gradient {tuple(gradient.shape)} of an output {call.output_shape}; give one of "
            "the same shape"
        )
    uncovered = spec.pooled and (currents.shape[-1] % 2 or currents.shape[-2] % 2)
    if uncovered:  # the kernel writes nothing where no window covers a neuron; the gradient there is 0
        output = torch.zeros_like(currents)
    elif input_reusable:
        output = currents.detach()
        torch.autograd.graph.increment_version(
            output
        )  # so that another user of the currents gets an error, not garbage
    else:
        output = torch.empty_like(currents)
    sums = {name: memory.empty_sum(spec, currents, name).zero_() for name in wanted}
    if derivative is not None:
        derivative = memory.in_memory_order(
            derivative.to(currents.dtype), currents, *memory.steps_and_batch(spec, currents)
        )
    upstream = memory.upstream_gradient(spec, currents, gradient)
    target, adaptation, initial = memory.parameters(spec, currents, threshold, initial)
    arrays = _arrays(
        currents=currents,
        target=target,
        adaptation=adaptation,
        initial=initial,
        derivative=derivative,
        gradient=upstream,
        output=output,
        **{name if name.endswith("_sum") else f"{name}_gradient": total for name, total in sums.items()},
    )
    _run(_native().hosnn_backward, call, arrays)
    return Gradients(output, **sums)


def sharpness(
    spec: KernelSpec, currents: Tensor, threshold: Threshold, initial: Tensor | None, assg: Sharpness
) -> Tensor:
    """ASSG's surrogate derivative h [T, B, *N] at these currents; updates the moments M and D in `assg`.

    spec  emits distances, not pooled
    """
    order = (*currents.stride()[:2], *assg.mean.stride()[2:])
    if currents.stride() != order or not memory.dense(currents):
        copy = memory.empty(assg.mean, *currents.shape[:2], dtype=currents.dtype)
        currents = copy.copy_(currents)
    steps, batch = memory.steps_and_batch(spec, currents)
    output = memory.empty(currents, steps, batch, dtype=currents.dtype)
    target, adaptation, initial = memory.parameters(spec, currents, threshold, initial)
    rows = assg.rows.to(torch.int64).contiguous()
    keep = assg.keep.to(torch.float32).contiguous()
    scale = assg.scale.to(torch.float32).expand(batch).contiguous()
    if len(rows) != batch or len(keep) != batch:
        raise ShapeError(f"the native kernel got {len(rows)} rows and {len(keep)} weights for a batch of {batch}")
    arrays = _arrays(
        currents=currents,
        target=target,
        adaptation=adaptation,
        initial=initial,
        output=output,
        mean=assg.mean,
        deviation=assg.deviation,
        sample_rows=rows,
        keep=keep,
        scale=scale,
    )
    constants = {"samples": assg.mean.shape[1], "relax": assg.relax, "learning": assg.learning}
    call = _call(spec, currents.shape, currents.stride(), currents.dtype, **constants)
    _run(_native().hosnn_sharpness, call, arrays)
    return output


def zero_moments(spec: KernelSpec, currents: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """ASSG's moments M and D before its first pass, zeros [T, samples, *N] in the memory order of these currents."""
    shape = (memory.steps_and_batch(spec, currents)[0], samples)
    currents = memory.laid_out(currents)
    return memory.empty(currents, *shape).zero_(), memory.empty(currents, *shape).zero_()


def _native() -> ctypes.CDLL:
    native = library()
    if native is None:
        raise BackendError("the native kernel is not available; `hosnn doctor` says why and what to do")
    return native


def _arrays(**tensors: Tensor | None) -> _Arrays:
    arrays = _Arrays()
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(arrays, name, tensor.data_ptr())
    return arrays


def _run(function: Callable[..., int], call: _Call, arrays: _Arrays) -> None:
    if call.several_threads:
        _in_parallel(function, call.spec, arrays, call.units)
    elif function(call.spec, arrays, 0, call.units):
        raise _no_memory(call.spec, call.units)


def _in_parallel(function: Callable[..., int], spec: _LayerSpec, arrays: _Arrays, units: int) -> None:
    """Divide units among as many threads as torch would use; a neuron's sums stay on one thread, in the same order."""
    threads = max(1, min(torch.get_num_threads(), units))
    bounds = [units * number // threads for number in range(threads + 1)]
    shares = [(spec, arrays, begin, end) for begin, end in pairwise(bounds)]
    futures = [_pool().submit(function, *share) for share in shares[1:]]
    try:
        failed = function(*shares[0])
    finally:
        wait(futures)  # also when interrupted: the threads write into arrays that must not be freed before
    if failed or any(future.result() for future in futures):
        raise _no_memory(spec, units)


def _no_memory(spec: _LayerSpec, units: int) -> MemoryError:
    return MemoryError(f"no memory for {spec.steps} time steps of {units} units")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="hosnn")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
