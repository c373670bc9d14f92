"""Which backend runs a layer: a fused kernel where one is there and does what is asked, else the eager step.

All give the same spikes; `choose` and the environment variable HOSNN_BACKEND override the choice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.spiking.gradient_rule import GradientRule, Rule, WholeLayer
from hosnn.spiking.kernels import cpu, cuda, eager, fused, memory
from hosnn.spiking.kernels.kernel_spec import ALONE, Around, Emitted
from hosnn.spiking.state import Dynamics

BACKENDS = ("auto", "eager", "cpu", "triton")

KERNELS = {"cpu": "cpu", "cuda": "triton"}
"""The fused kernel of each type of device."""

ABSENT = {"cpu": "the native kernel was not built", "triton": "Triton is not installed"}

_choices: list[list[str]] = []
"""Of `choose`, the latest last; each its own object, so that threads may leave in any order."""


@contextmanager
def choose(backend: str) -> Iterator[None]:
    """Use one backend in every thread for a while: auto, eager, or cpu or triton, which refuse what they cannot do.

    Raises BackendError for a name that is none.
    """
    choice = [_known(backend, "backend")]
    _choices.append(choice)
    try:
        yield
    finally:
        _choices[:] = [other for other in _choices if other is not choice]


def _chosen() -> str:
    if _choices:
        return _choices[-1][0]
    return _known(os.environ.get("HOSNN_BACKEND") or "auto", "the environment variable HOSNN_BACKEND")


def _known(backend: str, where: str) -> str:
    if backend not in BACKENDS:
        raise BackendError(f"{where} got {backend!r}; expected one of {', '.join(BACKENDS)}")
    return backend


def active(device: torch.device) -> str:
    """The backend that runs float32 layers on a device."""
    chosen = _chosen()
    if chosen != "auto":
        return chosen
    fused_one = KERNELS.get(device.type)
    return fused_one if fused_one and _there(fused_one) else "eager"


def refusal(currents: Tensor, rule: Rule, *homeostasis: Tensor | None) -> str:
    """Why no fused kernel runs this layer; empty if one does."""
    kernel = KERNELS.get(currents.device.type)
    if kernel is None or _chosen() not in ("auto", kernel):
        asked = f"{_chosen()} " if _chosen() in KERNELS.values() else ""
        return f"there is no fused {asked}kernel for {currents.device.type}"
    if not _there(kernel):
        return ABSENT[kernel]
    if currents.dtype not in memory.DTYPES:
        return f"it computes in float32 or bfloat16, not {currents.dtype}"
    for part in homeostasis:
        if part is not None and part.dtype not in (torch.float32, currents.dtype):
            return f"it computes in float32, not with a signature or k in {part.dtype}"
    if isinstance(rule, WholeLayer) and torch.is_grad_enabled():
        return f"{type(rule).__name__} looks at a whole layer"
    if _watched():
        return "its membranes are being watched"
    return ""


def layer(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None = None,
    adaptation: Tensor | None = None,
    spikes: bool = False,
    around: Around = ALONE,
) -> Tensor:
    """A layer over T steps from rest, its traces or `spikes`; arguments as in `eager.traces`.

    around  pools, or holds the input, only where `fuses` says so
    Raises BackendError if the backend asked for by name cannot do it.
    """
    chosen = _chosen()
    reason = "eager was asked for" if chosen == "eager" else refusal(currents, rule, signature, adaptation)
    if not reason:
        emit = Emitted.SPIKES if spikes else Emitted.TRACES
        each = rule if isinstance(rule, GradientRule) else GradientRule()
        return fused.run(currents, dynamics, each, signature, adaptation, emit, around)
    if around.gain is not None or around.held is not None:
        raise BackendError(f"no kernel does this layer together with its neighbours: {reason}; run them one by one")
    if chosen not in ("auto", "eager") and not _watched():
        raise BackendError(f"backend {chosen!r} cannot run this layer: {reason}; use 'auto' or 'eager'")
    return (eager.spikes if spikes else eager.traces)(currents, dynamics, rule, signature, adaptation)


@torch.no_grad()
def membranes(
    currents: Tensor,
    dynamics: Dynamics,
    signature: Tensor | None = None,
    adaptation: Tensor | None = None,
) -> Tensor:
    """The membranes before reset of a layer over T steps from rest, u [T, B, *N], without a gradient."""
    rule = GradientRule()
    if _chosen() == "eager" or refusal(currents, rule, signature, adaptation):
        return eager.trajectory(currents, dynamics, rule, signature, adaptation).membrane
    return fused.run(currents.float(), dynamics, rule, signature, adaptation, Emitted.MEMBRANE)


# torch.compile cannot look into these: what it compiles keeps what was true then.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _there(kernel: str) -> bool:
    return cuda.available() if kernel == "triton" else cpu.library() is not None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _watched() -> bool:
    return eager.is_recording()


def fuses(currents: Tensor, rule: Rule, *homeostasis: Tensor | None) -> bool:
    """Whether `layer` can pool on the way, and hold its input."""
    return _chosen() != "eager" and not refusal(currents, rule, *homeostasis)
