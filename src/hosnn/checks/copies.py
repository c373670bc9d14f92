"""Whether a copy of a model can stand in for it in another thread: does it copy, share nothing, answer the same?"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getattr_static
from pickle import PicklingError
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hosnn.checks.measurements import seeded_scores
from hosnn.runtime import own_randomness

COPY_ERRORS = (TypeError, RuntimeError, ValueError, AttributeError, copy.Error, PicklingError)
"""Errors of copying a module that holds open files, locks, generators or tensors with a graph."""

Copies = Literal["equal", "different", "shared", "impossible"]
"""equal: as good as the model; different: it gives other answers; shared: it runs modules or uses values of the model;
impossible: the model cannot be copied."""

HARMLESS = (type(None), bool, int, float, complex, str, bytes, type, BuiltinFunctionType, ModuleType, torch.dtype)
"""Values in a function's closure that several threads can use at once."""


INTERRUPTIONS = 16
"""Calls of modules before which another copy runs."""


def own_copy(model: nn.Module) -> nn.Module:
    """A copy with buffers and other state of its own that shares the parameters.  Raises one of COPY_ERRORS."""
    return copy.deepcopy(model, memo={id(parameter): parameter for parameter in model.parameters()})


def compare_copy(model: nn.Module, x: Tensor) -> Copies:
    """What a copy of the model is, by its answers to a few images x [n, ...] and by what it shares.

    The copy answers twice: some libraries reset the original's layers only, and a copy is at rest only once.
    """
    try:
        copied = own_copy(model)
    except COPY_ERRORS:
        return "impossible"
    expected, of_model = _answers_and_modules(model, x)
    try:
        first, of_copy = _answers_and_modules(copied, x)
        second = seeded_scores(copied, x, 0)
    except Exception:  # whatever a copy that lacks something may raise
        return "different"
    if not torch.equal(first, expected):
        return "different"
    if not torch.equal(second, expected) and torch.equal(seeded_scores(model, x, 0), expected):
        return "different"
    if of_model & of_copy or any(map(_captures_state, _functions(model))):
        return "shared"
    return "shared" if _is_disturbed(copied, own_copy(model), x) else "equal"


def _is_disturbed(model: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Whether the model, if it repeats its answers to x, gives others while `other` runs, as in another thread.

    What a class keeps for all its layers, such as a common membrane, is then seen to be shared.
    """
    before, again = (seeded_scores(model, x, 0) for _ in range(2))
    with _interrupted_by(other, model, 1 - x):
        interrupted = seeded_scores(model, x, 0)
    return torch.equal(before, again) and not torch.equal(before, interrupted)


@contextmanager
def _interrupted_by(other: nn.Module, model: nn.Module, x: Tensor) -> Iterator[None]:
    """Inside, `other` is called on x before the first calls of modules inside `model`."""
    parts, remaining = set(model.modules()) - {model}, INTERRUPTIONS

    def call_other(module: nn.Module, _: object) -> None:
        nonlocal remaining
        if module in parts and remaining:
            remaining -= 1
            with own_randomness():
                seeded_scores(other, x, 0)

    handle = register_module_forward_pre_hook(call_other)
    try:
        yield
    finally:
        handle.remove()


def _answers_and_modules(model: nn.Module, x: Tensor) -> tuple[Tensor, set[nn.Module]]:
    """The logits [n, K], and all modules that were called for them."""
    called: set[nn.Module] = set()

    def record(module: nn.Module, _: object) -> None:
        called.add(module)

    handle = register_module_forward_pre_hook(record)
    try:
        return seeded_scores(model, x, 0), called
    finally:
        handle.remove()


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    """Functions that modules hold, as attributes or hooks or in containers of them; copies share functions."""
    for module in model.modules():
        waiting: list[object] = [getattr_static(type(module), "forward", None), *vars(module).values()]
        while waiting:
            value = waiting.pop()
            if isinstance(value, FunctionType):
                yield value
            elif isinstance(value, dict):
                waiting += value.values()
            elif isinstance(value, (list, tuple)):
                waiting += value


def _captures_state(function: Callable[..., object]) -> bool:
    """Whether the closure of a function holds anything that a call could change."""
    if not isinstance(function, FunctionType):
        return False
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
        if isinstance(content, FunctionType):
            if content is not function and _captures_state(content):
                return True
        elif not isinstance(content, HARMLESS):
            return True
    return False
