"""What an attack may ask of a model, and the count of how often it asked.

A model is a function from inputs x [B, ...] to scores [B, K].  Attacks look at it through `scores` and `input_gradient`
only, so that every pass is counted.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import Loss

Model = Callable[[Tensor], Tensor]


class Attack(Protocol):
    """(model, x [B, ...], y [B], rng) -> x_adv [B, ...].  Random draws come from rng alone."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor: ...


@runtime_checkable
class Remembering(Protocol):
    """A model that remembers something of each sample of a batch from call to call, as an adaptive surrogate does."""

    def rows(self, chosen: Tensor, /) -> Model:
        """The same model for some of the samples, by mask or positions, with what is remembered of them."""

    def frozen(self) -> AbstractContextManager[None]:
        """For a while, remember nothing new."""


@runtime_checkable
class Forgetting(Protocol):
    """A model that can begin anew: what it remembers belongs to one run of an attack."""

    def fresh(self) -> Model:
        """The same model for the same samples, with nothing remembered of them; this one keeps what it knows."""


def fresh(model: Model) -> Model:
    """`model` for another run on the same samples: a restart, another target, the next of several attacks."""
    return model.fresh() if isinstance(model, Forgetting) else model


def rows(model: Model, chosen: Tensor) -> Model:
    """`model` for some of the samples of the batch; an attack that goes on with a part of its batch must say so."""
    return model.rows(chosen) if isinstance(model, Remembering) else model


@dataclass(frozen=True)
class Repeated:
    """A randomised model, looked at `times` times: scores and gradients are means (expectation over transformation)."""

    model: Model
    times: int

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(x) for _ in range(self.times)]).mean(0)

    def rows(self, chosen: Tensor, /) -> "Repeated":
        return Repeated(rows(self.model, chosen), self.times)

    def fresh(self) -> "Repeated":
        return Repeated(fresh(self.model), self.times)

    def frozen(self) -> AbstractContextManager[None]:
        return self.model.frozen() if isinstance(self.model, Remembering) else nullcontext()


@dataclass
class Passes:
    """Samples sent through a model: forwards, and the backwards among them."""

    forward: int = 0
    backward: int = 0


_tally: ContextVar[Passes | None] = ContextVar("passes", default=None)


@contextmanager
def counted() -> Iterator[Passes]:
    """Count the passes that `scores` and `input_gradient` make in this thread meanwhile."""
    passes = Passes()
    token = _tally.set(passes)
    try:
        yield passes
    finally:
        _tally.reset(token)


def _count(x: Tensor, model: Model, backward: bool) -> None:
    passes = _tally.get()
    if passes is not None:
        times = len(x) * (model.times if isinstance(model, Repeated) else 1)
        passes.forward += times
        passes.backward += times * backward


def scores(model: Model, x: Tensor) -> Tensor:
    """model(x) without a gradient: x [B, ...] -> [B, K]."""
    _count(x, model, backward=False)
    with torch.no_grad():
        return model(x)


class Ascent(NamedTuple):
    """One look at the loss surface."""

    gradient: Tensor  # dL/dx   [B, ...]
    loss: Tensor  # L           [B]
    scores: Tensor  # model(x)  [B, K]


class NoGradient(ConfigError):
    """The model's output does not depend on its input by way of autograd."""


def input_gradient(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Ascent:
    """Gradient of each sample's loss to its input; `.grad` of weights is never touched.

    Of a `Repeated` model: the mean over its looks of gradient, loss and scores.
    Raises NoGradient (a ConfigError) if the model's output does not depend on its input by way of autograd.
    """
    _count(x, model, backward=True)
    if not isinstance(model, Repeated):
        return _input_gradient(model, x, y, loss)
    eot_samples = [_input_gradient(model.model, x, y, loss)]
    with model.frozen():
        eot_samples += [_input_gradient(model.model, x, y, loss) for _ in range(model.times - 1)]
    return Ascent(*(torch.stack(values).mean(0) for values in zip(*eot_samples, strict=True)))


def _input_gradient(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Ascent:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        found = model(x)
        values = loss(found, y)
        if not values.requires_grad:
            raise NoGradient(
                "the model's scores carry no gradient to its input (detached, or computed under no_grad), so a "
                "gradient attack would see a flat surface and report false robustness; attack it with a gradient "
                "estimator, by transfer or without gradients instead"
            )
        (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    if gradient is None:
        raise NoGradient(
            "the model's scores carry a gradient to its weights but none to its input (the input was detached or "
            "converted on the way), so a gradient attack is blind; attack it by transfer or without gradients instead"
        )
    return Ascent(gradient, values.detach(), found.detach())
