"""Models that wrap another model and stay usable by every attack, and access to the network inside.

An attack may ask a model for some of its samples (`subset`), to drop its state (`without_state`), for the mean of
several calls (`AveragedModel`), for outputs over time or for the number of time steps.  A wrapper passes all of it on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, nn

from hosnn.robustness.model import AveragedModel, Model, StatefulModel, subset, without_state


@dataclass(frozen=True)
class WrappedModel:
    """A model that calls another; subclasses override `__call__`."""

    model: Model

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)

    def subset(self, chosen: Tensor, /) -> Self:
        return replace(self, model=subset(self.model, chosen))

    def without_state(self) -> Self:
        return replace(self, model=without_state(self.model))

    def state_frozen(self) -> AbstractContextManager[None]:
        return self.model.state_frozen() if isinstance(self.model, StatefulModel) else nullcontext()

    @property
    def outputs(self) -> Self:
        """The same wrapper around the network's outputs over time.  AttributeError if it has none."""
        inner: Any = self.model
        return replace(self, model=inner.outputs)

    @property
    def steps(self) -> int:
        """The network's number of time steps.  AttributeError if it has no such attribute."""
        inner: Any = self.model
        return int(inner.steps)


def unwrapped(model: Model) -> Model:
    """The innermost model: a network, a network's method or a plain function."""
    while isinstance(model, (WrappedModel, AveragedModel)):
        model = model.model
    return model


def replace_innermost(model: Model, change: Callable[[Model], Model]) -> Model:
    """`model` with `change` applied to its innermost model; the wrappers stay."""
    if isinstance(model, (WrappedModel, AveragedModel)):
        return replace(model, model=replace_innermost(model.model, change))
    return change(model)


def network_of(model: Model) -> nn.Module | None:
    """The network that `model` is or is a method of; None if it is neither."""
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
