"""When modules of a network run together: decided once, and again after a change.

A change is a module added, replaced or removed, an attribute set on one of ours, or a hook registered anywhere.
`unfused(model)` is the switch by which every module runs by itself; docs/speed.md says what is fused.
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
"""Replaced by another one whenever a module of ours changes."""


def structure_changed() -> None:
    """Make every network decide anew what it fuses; for changes that `Changing` does not notice."""
    global _structure
    _structure = object()


class Changing(nn.Module):
    """A module whose changes are noticed: attributes, and the modules in it.  train() and eval() are none."""

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        super().__setattr__(name, value)
        if name not in ("training", "_kept_plan"):
            structure_changed()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        structure_changed()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        structure_changed()


class ChangingSequence(Changing, nn.Sequential):
    """A sequence whose changes are noticed."""

    def insert(self, index: int, module: nn.Module) -> "ChangingSequence":
        super().insert(index, module)
        structure_changed()
        return self


class Kept(NamedTuple, Generic[P]):
    """A plan and what it was made for; `structure` None: there were hooks, whose removal cannot be noticed."""

    plan: P
    owner: int  # id of the module, which a copy of its attributes does not have
    structure: object | None
    hooks_registered: int


class Planned(Changing, Generic[P]):
    """A module that runs by a plan of type P; subclasses give `_decide`.

    fused  attribute, True at first; False: the modules in it run one after the other
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept_plan: Kept[P] | None = None
        self.fused = True

    def plan(self) -> P:
        """What is fused as the module stands now."""
        if torch.compiler.is_compiling():
            return self._decide()
        kept = self._kept_plan
        now = id(self), _structure, RemovableHandle.next_id
        if kept is None or kept[1:] != now:
            plan = self._decide()
            hooked = any_hooked_everywhere() or any(map(is_hooked, self.modules()))
            kept = self._kept_plan = Kept(plan, *now)
            if hooked:
                self._kept_plan = kept._replace(structure=None)
        return kept.plan

    def _decide(self) -> P:
        raise TypeError(f"{type(self).__name__} does not define _decide()")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept_plan": None}


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Every module of `model` runs by itself, as it is written; for hooks, debugging and comparison."""
    planned = [module for module in model.modules() if isinstance(module, Planned)]
    before = [module.fused for module in planned]
    for module in planned:
        module.fused = False
    try:
        yield
    finally:
        for module, fused in zip(planned, before, strict=True):
            module.fused = fused


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks see what goes in or out of this very module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def any_hooked_everywhere() -> bool:
    """Whether hooks see every module's input or output, and may keep it."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def is_plain(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a module is of this very type, with no forward of its own and no hooks."""
    return type(module) is kind and "forward" not in vars(module) and not is_hooked(module)


def takes_context(neurons: nn.Module) -> bool:
    """Whether operations can be fused into a spiking layer: its forward takes a `context`, and it has no hooks."""
    return "context" in inspect.signature(neurons.forward).parameters and not is_hooked(neurons)
