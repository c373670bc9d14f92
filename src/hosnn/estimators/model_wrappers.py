"""Models around models: what attacks are shown in place of a network, without losing the way to the network inside.

An attack may take only some samples (`rows`), begin anew (`fresh`), look several times (`Repeated`), ask for outputs
over time or for the number of time steps.  A wrapper passes all of that on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, nn

from hosnn.robustness.model import Model, Remembering, Repeated, fresh, rows


@dataclass(frozen=True)
class Wrapped:
    """A model that is another model, looked at in some way; subclasses change `__call__`."""

    model: Model

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)

    def rows(self, chosen: Tensor, /) -> Self:
        return replace(self, model=rows(self.model, chosen))

    def fresh(self) -> Self:
        return replace(self, model=fresh(self.model))

    def frozen(self) -> AbstractContextManager[None]:
        return self.model.frozen() if isinstance(self.model, Remembering) else nullcontext()

    @property
    def outputs(self) -> Self:
        """The same wrapper around the network's outputs over time.  AttributeError if it has none."""
        inner: Any = self.model
        return replace(self, model=inner.outputs)

    @property
    def steps(self) -> int:
        """How many time steps the network runs.  AttributeError if it does not say."""
        inner: Any = self.model
        return int(inner.steps)


def inside(model: Model) -> Model:
    """The function inside all wrappers."""
    while isinstance(model, (Wrapped, Repeated)):
        model = model.model
    return model


def innermost(model: Model, change: Callable[[Model], Model]) -> Model:
    """`model` with the function inside all wrappers changed: a network, a network's method or a plain function."""
    if isinstance(model, (Wrapped, Repeated)):
        return replace(model, model=innermost(model.model, change))
    return change(model)


def network_of(model: Model) -> nn.Module | None:
    """The network a function is, or is a method of; None if it is neither."""
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
