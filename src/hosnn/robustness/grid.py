"""Attacks on images of a few bits per pixel (`Threat.bits`): the model seen through the rounding of its input.

Attacks keep the points and step sizes that they would have without a grid, so that steps of less than half a level add
up instead of being rounded away; the model sees the rounded point, and the gradient passes through the rounding
unchanged (straight-through).  Scores, losses and success are therefore those of images on the grid.
Shapes: x [B, ...].
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.robustness.balls import Events
from hosnn.robustness.model import AveragedModel, Model, StatefulModel, subset, without_state
from hosnn.robustness.threats import Threat


def through_grid(model: Model, threat: Threat, x: Tensor) -> Model:
    """The model of z -> model(threat.rounded(z, x)) for the clean images x; `model` itself without a grid.

    Raises ConfigError for images that are not on the grid.
    """
    if threat.bits is None:
        return model
    check_on_grid(threat, x)
    if isinstance(model, AveragedModel):  # stays outermost, for its calls are counted and their gradients averaged
        return replace(model, model=_ThroughGrid(model.model, threat, x))
    return _ThroughGrid(model, threat, x)


def check_on_grid(threat: Threat, x: Tensor) -> None:
    """Raise ConfigError for images that are not on the threat's grid, and for frames whose numbers of events are all
    multiples of another: then they were divided by a smaller maximum, and what the threat calls an event is a part."""
    off_grid = int((~threat.on_grid(x)).sum())
    if off_grid:
        raise ConfigError(
            f"the threat {threat} got {off_grid:,} of {len(x):,} images with pixels that are not multiples of "
            f"1/{threat.levels}; expected {_expected(threat)}"
        )
    if isinstance(threat.ball, Events) and (multiple := _common_divisor(x, threat.ball.maximum)) > 1:
        count, maximum = threat.ball.count, threat.ball.maximum
        raise ConfigError(
            f"the threat {threat} got frames in which every number of events is a multiple of {multiple}; expected the "
            f"maximum by which they were divided, events:{count}/{max(1, maximum // multiple)} if they hold {multiple} "
            "for each event"
        )


def _common_divisor(frames: Tensor, maximum: int) -> int:
    """The greatest common divisor of all numbers of events; 0: there are none."""
    divisors = (np.gcd.reduce((frame * maximum).round().to(torch.int64).cpu().numpy(), axis=None) for frame in frames)
    return math.gcd(*map(int, divisors))


def _expected(threat: Threat) -> str:
    if threat.bits is None:
        return (
            f"frames that hold numbers of events over {threat.levels}; name the maximum by which they were divided, as "
            "in events:20/8, or attack them under another threat"
        )
    return f"images of {threat.bits} bits, as they come from files; round them first, or leave out @{threat.bits}bit"


def check_budget(threat: Threat, x: Tensor) -> None:
    """Raise ConfigError for an eps beyond the largest distance of two images [B, ...] in [0, 1]."""
    whole = float(threat.ball.size(torch.ones_like(x[:1]))[0])
    if threat.ball.eps > whole * (1 + 1e-6):
        raise ConfigError(
            f"the threat {threat} allows more than any two images {tuple(x.shape[1:])} differ by, which is {whole:g}; "
            f"expected a smaller eps ({threat.ball.name}:{threat.ball.eps:g}/255 if you meant grey levels)"
        )


@dataclass(frozen=True)
class _ThroughGrid:
    model: Model
    threat: Threat
    x: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        point: Tensor = _StraightThrough.apply(z, self.threat.rounded(z.detach(), self.x))  # type: ignore[no-untyped-call]
        return self.model(point)

    def subset(self, chosen: Tensor, /) -> "_ThroughGrid":
        return replace(self, model=subset(self.model, chosen), x=self.x[chosen])

    def without_state(self) -> "_ThroughGrid":
        return replace(self, model=without_state(self.model))

    def state_frozen(self) -> AbstractContextManager[None]:
        return self.model.state_frozen() if isinstance(self.model, StatefulModel) else nullcontext()


class _StraightThrough(torch.autograd.Function):
    """(z, point) -> point, exactly (z + (point - z) may differ in its last bit), with the gradient passed on to z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, point: Tensor) -> Tensor:
        return point

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None
