"""Which modules of a network run as one operation: a plan, made at the first forward pass and again after a change.

A change is a module added, replaced or removed, an attribute set on one of ours, or a hook registered anywhere.
`unfused(model)` makes every module run by itself; docs/speed.md says what is fused.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

P = TypeVar("P")

_structure = object()
"""Replaced by a new object whenever a module of ours changes; plans made for an earlier one are outdated."""


def structure_changed() -> None:
    """Outdate all plans; for changes that `ObservedModule` does not notice."""
    global _structure
    _structure = object()


class ObservedModule(nn.Module):
    """A module that outdates all plans when an attribute or a module in it is set; train() and eval() do not."""

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        super().__setattr__(name, value)
        if name not in ("training", "_cached_plan"):
            structure_changed()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        structure_changed()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        structure_changed()


class ObservedSequential(ObservedModule, nn.Sequential):
    """A sequence that outdates all plans when it changes."""

    def insert(self, index: int, module: nn.Module) -> "ObservedSequential":
        super().insert(index, module)
        structure_changed()
        return self


class CachedPlan(NamedTuple, Generic[P]):
    """A plan, and the state it was made for."""

    plan: P
    owner: int  # id of the module: a copy of the module must not use the plan
    structure: object | None  # None if there were hooks, whose removal is not noticed: the plan is made again next time
    hooks_registered: int


class Planned(ObservedModule, Generic[P]):
    """A module that runs by a plan of type P; subclasses define `_make_plan`.

    fused  attribute, True at first; False: the modules in it run one after the other
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._cached_plan: CachedPlan[P] | None = None
        self.fused = True

    def plan(self) -> P:
        """The current plan, made again if anything changed."""
        if torch.compiler.is_compiling():
            return self._make_plan()
        cached = self._cached_plan
        state = id(self), _structure, RemovableHandle.next_id
        if cached is None or cached[1:] != state:
            plan = self._make_plan()
            hooked = any_global_hooks() or any(map(has_hooks, self.modules()))
            cached = self._cached_plan = CachedPlan(plan, *state)
            if hooked:
                self._cached_plan = cached._replace(structure=None)
        return cached.plan

    def _make_plan(self) -> P:
        raise TypeError(f"{type(self).__name__} does not define _make_plan()")

    def __getstate__(self) -> dict[str, Any]:
        # Without what torch.compile put into the module, which would call the original.
        return {**super().__getstate__(), "_cached_plan": None}  # type: ignore[no-untyped-call]


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Inside, every module of `model` runs by itself; for hooks, debugging and comparison."""
    planned = [module for module in model.modules() if isinstance(module, Planned)]
    before = [module.fused for module in planned]
    for module in planned:
        module.fused = False
    try:
        yield
    finally:
        for module, fused in zip(planned, before, strict=True):
            module.fused = fused


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks see the input or output of this very module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def any_global_hooks() -> bool:
    """Whether hooks on all modules see inputs and outputs, and may keep them."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def is_plain(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a module is of this very type, with no forward of its own and no hooks."""
    return type(module) is kind and "forward" not in vars(module) and not has_hooks(module)


def accepts_context(neurons: nn.Module) -> bool:
    """Whether operations can be fused into a spiking layer: its forward takes a `context`, and it has no hooks."""
    return "context" in inspect.signature(neurons.forward).parameters and not has_hooks(neurons)
