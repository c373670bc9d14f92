"""How attacks call the model: scores, input gradients, a count of passes, models that keep state per sample.

A model is a function from inputs x [B, ...] to scores [B, K].  Attacks call it through `scores` and `input_gradient`
only, so that every pass is counted.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import Loss

IN_PLACE = (
    "the model changes its input in place, so an attack would lose the image it is at; let it work on a copy, e.g. "
    "x = x - mean in the place of x.sub_(mean)"
)

Model = Callable[[Tensor], Tensor]


class Attack(Protocol):
    """(model, x [B, ...], y [B], rng) -> x_adv [B, ...].  Random draws come from rng alone."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor: ...


@runtime_checkable
class StatefulModel(Protocol):
    """A model that keeps state for each sample of a batch between calls, as an adaptive surrogate does."""

    def subset(self, chosen: Tensor, /) -> Model:
        """The model for some of the samples (mask or positions), with their state."""

    def state_frozen(self) -> AbstractContextManager[None]:
        """A context in which calls do not change the state."""


@runtime_checkable
class ResettableModel(Protocol):
    """A model whose state belongs to one run of an attack and can be cleared for the next."""

    def without_state(self) -> Model:
        """The model for the same samples with no state; this one keeps its own."""


def without_state(model: Model) -> Model:
    """`model` for another run on the same samples: a restart, another target, the next of several attacks."""
    return model.without_state() if isinstance(model, ResettableModel) else model


def subset(model: Model, chosen: Tensor) -> Model:
    """`model` for some samples of the batch; an attack that continues on part of its batch must call this."""
    return model.subset(chosen) if isinstance(model, StatefulModel) else model


@dataclass(frozen=True)
class AveragedModel:
    """A randomised model averaged over calls (expectation over transformation).

    eot_samples  calls per pass; scores, losses and gradients are means over them
    """

    model: Model
    eot_samples: int

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(x) for _ in range(self.eot_samples)]).mean(0)

    def subset(self, chosen: Tensor, /) -> "AveragedModel":
        return AveragedModel(subset(self.model, chosen), self.eot_samples)

    def without_state(self) -> "AveragedModel":
        return AveragedModel(without_state(self.model), self.eot_samples)

    def state_frozen(self) -> AbstractContextManager[None]:
        return self.model.state_frozen() if isinstance(self.model, StatefulModel) else nullcontext()


@dataclass
class Passes:
    """Number of samples sent through a model: in forward passes, and in backward passes.

    abandoned  set when nobody waits for the result any more: the next pass raises KeyboardInterrupt
    """

    forward: int = 0
    backward: int = 0
    abandoned: Event | None = None


_passes: ContextVar[Passes | None] = ContextVar("passes", default=None)


@contextmanager
def count_passes(abandoned: Event | None = None) -> Iterator[Passes]:
    """Count the passes that `scores` and `input_gradient` make in this thread within the context; once another thread
    has set `abandoned`, they raise KeyboardInterrupt instead."""
    passes = Passes(abandoned=abandoned)
    token = _passes.set(passes)
    try:
        yield passes
    finally:
        _passes.reset(token)


def _count(x: Tensor, model: Model, backward: bool) -> None:
    passes = _passes.get()
    if passes is not None:
        if passes.abandoned is not None and passes.abandoned.is_set():
            raise KeyboardInterrupt
        samples = len(x) * (model.eot_samples if isinstance(model, AveragedModel) else 1)
        passes.forward += samples
        passes.backward += samples * backward


def scores(model: Model, x: Tensor) -> Tensor:
    """model(x) without a gradient: x [B, ...] -> [B, K]."""
    _count(x, model, backward=False)
    with torch.no_grad():
        return _called(model, x)


def _called(model: Model, x: Tensor) -> Tensor:
    """model(x).  Raises ConfigError if it changes x in place."""
    version = None if x.is_inference() else x._version
    try:
        output = model(x)
    except RuntimeError as error:
        if "in-place operation" not in str(error):
            raise
        raise ConfigError(f"{IN_PLACE} (or a weight: {error})") from error
    if version is not None and x._version != version:
        raise ConfigError(IN_PLACE)
    return output


class InputGradient(NamedTuple):
    """The result of one forward and backward pass."""

    gradient: Tensor  # dL/dx   [B, ...]
    loss: Tensor  # L           [B]
    scores: Tensor  # model(x)  [B, K]


class NoGradient(ConfigError):
    """Autograd finds no path from the model's output to its input."""


def input_gradient(model: Model, x: Tensor, y: Tensor, loss: Loss) -> InputGradient:
    """Gradient of each sample's loss to its input; `.grad` of weights is never touched.

    Of an `AveragedModel`: the means over its calls of gradient, loss and scores.
    Raises NoGradient (a ConfigError) if autograd finds no path from the model's output to its input.
    """
    _count(x, model, backward=True)
    if not isinstance(model, AveragedModel):
        return _input_gradient(model, x, y, loss)
    gradients = [_input_gradient(model.model, x, y, loss)]
    with model.state_frozen():
        gradients += [_input_gradient(model.model, x, y, loss) for _ in range(model.eot_samples - 1)]
    return InputGradient(*(torch.stack(values).mean(0) for values in zip(*gradients, strict=True)))


def _input_gradient(model: Model, x: Tensor, y: Tensor, loss: Loss) -> InputGradient:
    if torch.is_inference_mode_enabled():
        raise ConfigError(
            "an attack was called under torch.inference_mode(), where no gradients exist; call it outside, or under "
            "torch.no_grad(), or with torch.inference_mode(False)"
        )
    with torch.enable_grad():
        x = (x.clone() if x.is_inference() else x).detach().requires_grad_()
        output = _called(model, x)
        values = loss(output, y)
        if not values.requires_grad:
            raise NoGradient(
                "the model's scores carry no gradient to its input (detached, or computed under no_grad), so a "
                "gradient attack would find a flat loss and report false robustness; attack it with a gradient "
                "estimator, by transfer or without gradients instead"
            )
        try:
            (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise NoGradient(
                f"the model uses an operation that torch cannot differentiate ({error}), such as heaviside without a "
                "surrogate; give its spikes a surrogate gradient, or attack it by transfer or without gradients"
            ) from error
    if gradient is None:
        raise NoGradient(
            "the model's scores carry a gradient to its weights but none to its input (the input was detached or "
            "converted on the way), so gradient attacks cannot work; attack it by transfer or without gradients"
        )
    return InputGradient(gradient, values.detach(), output.detach())
