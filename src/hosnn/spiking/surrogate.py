"""Surrogate derivatives: what the backward pass uses in place of the derivative of a spike.

A spike is s = 1 if x > 0 else 0, with x = membrane potential - threshold (dimensionless: 1 is the resting threshold).
Its derivative is zero almost everywhere, so training and attacks replace it by a bump h(x) around x = 0.  A surrogate
is a frozen value, the same in train() and eval() mode.  Every shape but StraightThrough integrates to 1, as the
derivative of a unit step does, so that one width compares across shapes.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import ConfigError


@dataclass(frozen=True)
class Surrogate:
    """h(x) for x = membrane potential - threshold; subclasses give `derivative`.

    Raises ConfigError if a width is not a positive finite number.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "width" and not (value > 0 and math.isfinite(value)):
                raise ConfigError(
                    f"{type(self).__name__} got width {value!r}; expected a positive number, in units of the "
                    "resting threshold, e.g. 0.2"
                )

    def derivative(self, x: Tensor) -> Tensor:
        """h(x), elementwise, in the shape and dtype of x."""
        raise TypeError(f"{type(self).__name__} does not define derivative(x)")

    def spike(self, distance: Tensor, backward_distance: Tensor | None = None) -> Tensor:
        """1 where distance > 0, else 0; the gradient is h(backward_distance), by default h(distance).

        distance           membrane potential - threshold              [...]  potential
        backward_distance  where h is evaluated, if not at `distance`  [...]  potential
        returns            spikes in {0, 1}, the dtype of `distance`   [...]
        """
        at = distance if backward_distance is None else backward_distance
        return _Spike.apply(distance, at.detach(), self)  # type: ignore[no-any-return, no-untyped-call]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, at: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(at)
        ctx.surrogate = surrogate
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (at,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(at), None, None


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """h(x) = σ'(x/w)/w with σ' = σ(1 - σ); `clamp` bounds |x/w|, so that h never reaches 0 (TSSL-BP's code: 8)."""

    width: float = 0.2
    clamp: float = math.inf

    def derivative(self, x: Tensor) -> Tensor:
        # e/(1+e)^2 with e = exp(-|z|) equals σ(1-σ), which would round to exactly 0 beyond |z| = 17 in float32.
        e = (x / self.width).abs().clamp(max=self.clamp).neg_().exp_()
        return e / (self.width * (1 + e).square())


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """h(x) = 1/(2w (1 + |x|/w)^2), the SuperSpike surrogate at unit area (Zenke & Ganguli 2018)."""

    width: float = 0.1

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + x.abs() / self.width).square().reciprocal() / (2 * self.width)


@dataclass(frozen=True)
class Arctan(Surrogate):
    """h(x) = 1/(w (1 + (πx/w)^2)) (Fang et al. 2021, α = 2/w)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + (math.pi / self.width * x).square()).reciprocal() / self.width


@dataclass(frozen=True)
class PiecewiseLinear(Surrogate):
    """h(x) = max(0, 1 - |x|/w)/w, a triangle (Esser et al. 2016; Bellec et al. 2018)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (1 - x.abs() / self.width).clamp(min=0) / self.width


@dataclass(frozen=True)
class Rectangle(Surrogate):
    """h(x) = 1/w for |x| < w/2, else 0 (STBP, Wu et al. 2018)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() < self.width / 2).to(x.dtype) / self.width


@dataclass(frozen=True)
class Exponential(Surrogate):
    """h(x) = exp(-|x|/w)/(2w) (Shrestha & Orchard 2018, at unit area)."""

    width: float = 0.5

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() / -self.width).exp() / (2 * self.width)


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """h(x) = 1 (Bengio et al. 2013)."""

    def derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


SURROGATES: tuple[type[Surrogate], ...] = (
    Sigmoid,
    FastSigmoid,
    Arctan,
    PiecewiseLinear,
    Rectangle,
    Exponential,
    StraightThrough,
)
