"""Running a layer on a backend: a fused kernel if one is available and supports the layer, else the eager step.

All give the same spikes; `choose` and the environment variable HOSNN_BACKEND override the automatic choice.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.errors import BackendError
from hosnn.spiking.coding import encode_constant
from hosnn.spiking.gradient_rule import GradientRule, Rule, WholeLayerRule
from hosnn.spiking.kernels import cpu, cuda, eager, fused, memory
from hosnn.spiking.kernels.kernel_spec import (
    KERNEL_SURROGATES,
    NOTHING_FUSED,
    PRECOMPUTED,
    FusionContext,
    KernelOutput,
    cached_kernel_spec,
    kernel_spec,
)
from hosnn.spiking.state import Dynamics, Threshold, threshold_tensors

BACKENDS = ("auto", "eager", "cpu", "triton")

KERNELS = {"cpu": "cpu", "cuda": "triton"}
"""The fused kernel of each type of device."""

WHY_ABSENT: dict[str, str] = {"cpu": "the native kernel was not built", "triton": "Triton is not installed"}

PLAIN_TYPES = frozenset((Tensor, torch.nn.Parameter, type(None)))
"""Types of tensors with memory of their own, which native code can read."""

_observer: ContextVar[Callable[[Rule], None] | None] = ContextVar("observer of rules", default=None)

_choices: list[list[str]] = []
"""The backends of all open `choose` contexts, latest last; one list each, as threads may leave them in any order."""


@contextmanager
def choose(backend: str) -> Iterator[None]:
    """Use one backend in every thread within the context: auto, eager, or cpu or triton by name.

    Raises BackendError for another name; a layer that a backend asked for by name cannot run raises it too.
    """
    choice = [_checked_name(backend, "backend")]
    _choices.append(choice)
    try:
        yield
    finally:
        _choices[:] = [other for other in _choices if other is not choice]


def _chosen() -> str:
    if _choices:
        return _choices[-1][0]
    name = os.environ.get("HOSNN_BACKEND")
    return _checked_name(name, "the environment variable HOSNN_BACKEND") if name else "auto"


def _checked_name(backend: str, where: str) -> str:
    if backend not in BACKENDS:
        raise BackendError(f"{where} got {backend!r}; expected one of {', '.join(BACKENDS)}")
    return backend


def active(device: torch.device) -> str:
    """The backend that runs float32 layers on a device."""
    chosen = _chosen()
    if chosen != "auto":
        return chosen
    kernel = KERNELS.get(device.type)
    return kernel if kernel and not _why_unusable(kernel) else "eager"


@contextmanager
def rules_observed(observe: Callable[[Rule], None]) -> Iterator[None]:
    """Inside, `observe` is called with the gradient rule of each layer that this thread runs."""
    token = _observer.set(observe)
    try:
        yield
    finally:
        _observer.reset(token)


def run_layer(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold = None,
    emit: KernelOutput = KernelOutput.TRACES,
    context: FusionContext = NOTHING_FUSED,
) -> Tensor:
    """The output of a layer over T steps from rest, with the operations of `context`: [T, B, *N] unless pooled.

    currents  [T, B, *N], or [1, B, *N] of a constant input
    emit      TRACES or SPIKES; other quantities come from fused kernels only
    Raises BackendError if the backend chosen by name cannot run it.
    """
    if not torch.compiler.is_compiling() and (observe := _observer.get()) is not None:
        observe(rule)
    chosen = _chosen()
    target, adaptation = threshold_tensors(threshold)
    reason = _why_eager(chosen, currents, rule, target, adaptation)
    if reason:
        if chosen not in ("auto", "eager") and reason != WHY_RECORDING:
            raise BackendError(f"backend {chosen!r} cannot run this layer: {reason}; use 'auto' or 'eager'")
        return _eager_layer(currents, dynamics, rule, threshold, emit, context)
    gain, constant, input_reusable = context
    if gain is not None and not _can_pool(currents):
        return _pooled(run_layer(currents, dynamics, rule, threshold, emit, context._replace(pool_gain=None)), gain)
    steps, tau, initial = constant or (0, 1.0, None)
    gradient_rule = rule if isinstance(rule, GradientRule) else GradientRule()
    compiling = torch.compiler.is_compiling()
    is_value = type(gradient_rule) is GradientRule and type(gradient_rule.surrogate) in KERNEL_SURROGATES
    make_spec = cached_kernel_spec if is_value and not compiling else kernel_spec
    spec = make_spec(dynamics, gradient_rule, emit, gain, steps, tau)
    original = currents
    if gain is not None or not currents.is_contiguous():
        currents = memory.laid_out(currents, channels_last=gain is not None)
    derivative = None
    if spec.surrogate == PRECOMPUTED and torch.is_grad_enabled():
        derivative = fused.surrogate_derivative(currents.detach(), dynamics, gradient_rule, threshold, constant)
    tensors = (currents, target, adaptation, initial, derivative)
    local = gradient_rule.local_adaptation and emit is KernelOutput.TRACES  # the local rule is defined on traces
    if compiling or torch._C._len_torch_dispatch_stack() or not PLAIN_TYPES.issuperset(map(type, tensors)):
        return fused.neuron(*tensors, spec.reals, spec.integers, local)  # type: ignore[no-any-return]
    if torch._C._functorch.is_functorch_wrapped_tensor(currents):
        raise BackendError(
            "torch.func (grad, vmap, ..) cannot transform a fused spiking layer; use torch.autograd, a batch at a time"
        )
    if torch.is_grad_enabled():
        target, adaptation, initial = fused.as_non_leaves(target, adaptation, initial)
    input_reusable |= currents.data_ptr() != original.data_ptr()  # a copy, which nothing else reads
    return fused.FusedLayer.apply(  # type: ignore[no-any-return, no-untyped-call]
        currents, target, adaptation, initial, derivative, spec, local, input_reusable
    )


def fuses(currents: Tensor, rule: Rule, threshold: Threshold = None) -> bool:
    """Whether `run_layer` runs a fused kernel."""
    return not _why_eager(_chosen(), currents, rule, *threshold_tensors(threshold))


@torch.no_grad()
def membranes(currents: Tensor, dynamics: Dynamics, threshold: Threshold = None) -> Tensor:
    """The membranes before reset of a layer over T steps from rest, u [T, B, *N], without a gradient."""
    rule = GradientRule()
    if not fuses(currents, rule, threshold):
        return eager.trajectory(currents, dynamics, rule, threshold).membrane
    return run_layer(currents.float(), dynamics, rule, threshold, KernelOutput.MEMBRANE)


def _why_eager(chosen: str, currents: Tensor, rule: Rule, target: Tensor | None, adaptation: Tensor | None) -> str:
    """Why no fused kernel runs this layer; empty if one does."""
    if chosen == "eager":
        return "eager was asked for"
    kernel = KERNELS.get(currents.device.type)
    if kernel is None or chosen not in ("auto", kernel):
        asked = f"{chosen} " if chosen in KERNELS.values() else ""
        return f"there is no fused {asked}kernel for {currents.device.type}"
    if currents.dtype not in memory.DTYPES:
        return f"it computes in float32 or bfloat16, not {currents.dtype}"
    if target is not None and target.dtype not in (torch.float32, currents.dtype):
        return f"it computes in float32, not with a signature or thresholds in {target.dtype}"
    if adaptation is not None and adaptation.dtype not in (torch.float32, currents.dtype):
        return f"it computes in float32, not with k in {adaptation.dtype}"
    if isinstance(rule, WholeLayerRule) and torch.is_grad_enabled():
        return f"{type(rule).__name__} needs membranes and thresholds of all time steps"
    reason: str = _why_unusable(kernel)
    return reason


# torch.compile cannot trace this: compiled code keeps the answer that it got while compiling.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _why_unusable(kernel: str) -> str:
    """Why a kernel cannot run any layer now; empty if it can."""
    if (cpu.library() if kernel == "cpu" else cuda.kernels()) is None:
        return WHY_ABSENT[kernel]
    return WHY_RECORDING if eager.is_recording() else ""


WHY_RECORDING = "the layer is being recorded"


def _eager_layer(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold,
    emit: KernelOutput,
    context: FusionContext,
) -> Tensor:
    if context.constant is not None:
        currents = encode_constant(currents[0], *context.constant)
    forward = eager.spikes if emit is KernelOutput.SPIKES else eager.traces
    output = forward(currents, dynamics, rule, threshold)
    return output if context.pool_gain is None else _pooled(output, context.pool_gain)


def _can_pool(currents: Tensor) -> bool:
    """Whether currents are feature maps [T, B, C, H, W] with at least one 2 x 2 window, which a kernel can pool."""
    return currents.dim() == 5 and currents.numel() > 0 and min(currents.shape[-2:]) >= 2


def _pooled(output: Tensor, gain: float) -> Tensor:
    """With channels last, as a kernel that pools writes it: the order in memory decides how a convolution rounds."""
    pooled = functional.avg_pool2d(output.flatten(0, 1), 2) * gain
    return memory.laid_out(pooled.view(*output.shape[:2], *pooled.shape[1:]), channels_last=True)
