"""Surrogate derivatives, which the backward pass uses in place of the derivative of a spike.

A spike is s = 1 if x > 0 else 0, with x = membrane potential - threshold, in units of the layer's resting threshold.
Its derivative is zero almost everywhere, so training and attacks replace it by a bump h(x) around x = 0.  A surrogate
is a frozen value, the same in train() and eval() mode.  Every shape but StraightThrough integrates to 1, as the
derivative of a unit step does, so that one width compares across shapes; an Exponential with a given peak does not.

In a layer whose resting threshold θ[0] is not 1 the derivative is h(x/θ[0])/θ[0] (`in_units_of`), so that a network
whose weights and thresholds are multiplied by one factor, which spikes as before, is attacked as before.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.identity import identified


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

    def in_units_of(self, threshold: float) -> "Surrogate":
        """The surrogate of a layer with this resting threshold, as a function of potentials: h(x/θ[0])/θ[0]."""
        return self if threshold == 1 else _Scaled(self, threshold)

    def prepared(self, x: Tensor) -> "Surrogate":
        """The surrogate that differentiates a forward pass with distances x; called once per pass and time step.

        Itself, unless it adapts to the distances of this pass and earlier ones.
        """
        return self

    def spike(self, distance: Tensor, backward_distance: Tensor | None = None) -> Tensor:
        """1 where distance > 0, else 0; the gradient is h(backward_distance), by default h(distance).

        distance           membrane potential - threshold              [...]  potential
        backward_distance  where h is evaluated, if not at `distance`  [...]  potential
        returns            spikes in {0, 1}, the dtype of `distance`   [...]
        """
        x = (distance if backward_distance is None else backward_distance).detach()
        return _Spike.apply(distance, x, self.prepared(x) if torch.is_grad_enabled() else self)  # type: ignore[no-any-return, no-untyped-call]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        gradient = grads[0] * ctx.surrogate.derivative(x)
        # Denormal numbers are too small to matter in any sum, but make the backward of narrow surrogates twice as slow.
        smallest_normal = min(torch.finfo(gradient.dtype).tiny, torch.finfo(torch.float32).tiny)
        return functional.hardshrink(gradient, smallest_normal), None, None


@dataclass(frozen=True)
class _Scaled(Surrogate):
    surrogate: Surrogate
    unit: float

    def derivative(self, x: Tensor) -> Tensor:
        return self.surrogate.derivative(x / self.unit) / self.unit

    def prepared(self, x: Tensor) -> Surrogate:
        return replace(self, surrogate=self.surrogate.prepared(x / self.unit))


@dataclass(frozen=True)
class _OfWidth(Surrogate):
    """A shape with h(x) = f(x/w)/w."""

    width: float = 1.0

    def in_units_of(self, threshold: float) -> Surrogate:
        return replace(self, width=self.width * threshold)


@identified("Sigmoid")
@dataclass(frozen=True)
class Sigmoid(_OfWidth):
    """h(x) = σ'(x/w)/w with σ' = σ(1 - σ); `clamp` bounds |x/w|, so that h never reaches 0 (TSSL-BP's code: 8)."""

    width: float = 0.2
    clamp: float = math.inf

    def derivative(self, x: Tensor) -> Tensor:
        # e/(1+e)^2 with e = exp(-|z|) equals σ(1-σ), which would round to exactly 0 beyond |z| = 17 in float32.
        e = (x / self.width).abs().clamp(max=self.clamp).neg_().exp_()
        return e / (self.width * (1 + e).square())


@identified("FastSigmoid")
@dataclass(frozen=True)
class FastSigmoid(_OfWidth):
    """h(x) = 1/(2w (1 + |x|/w)^2), the SuperSpike surrogate at unit area (Zenke & Ganguli 2018)."""

    width: float = 0.1

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + x.abs() / self.width).square().reciprocal() / (2 * self.width)


@identified("Arctan")
@dataclass(frozen=True)
class Arctan(_OfWidth):
    """h(x) = 1/(w (1 + (πx/w)^2)) (Fang et al. 2021, α = 2/w)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + (math.pi / self.width * x).square()).reciprocal() / self.width


@identified("PiecewiseLinear")
@dataclass(frozen=True)
class PiecewiseLinear(_OfWidth):
    """h(x) = max(0, 1 - |x|/w)/w, a triangle (Esser et al. 2016; Bellec et al. 2018)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (1 - x.abs() / self.width).clamp(min=0) / self.width


@identified("Rectangle")
@dataclass(frozen=True)
class Rectangle(_OfWidth):
    """h(x) = 1/w for |x| < w/2, else 0 (STBP, Wu et al. 2018)."""

    width: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() < self.width / 2).to(x.dtype) / self.width


@identified("Exponential")
@dataclass(frozen=True)
class Exponential(_OfWidth):
    """h(x) = p exp(-|x|/w) (Shrestha & Orchard 2018); the peak p is 1/(2w), for unit area, unless given.

    A peak below 1 is what Özdenizci & Legenstein (TMLR 2024) call dampening: they take p = 0.3.
    """

    width: float = 0.5
    peak: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.peak is not None and not (self.peak > 0 and math.isfinite(self.peak)):
            raise ConfigError(f"Exponential got peak {self.peak!r}; expected a positive number, e.g. 0.3, or None")

    def in_units_of(self, threshold: float) -> Surrogate:
        peak = None if self.peak is None else self.peak / threshold
        return replace(self, width=self.width * threshold, peak=peak)

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() / -self.width).exp() * (1 / (2 * self.width) if self.peak is None else self.peak)


@identified("StraightThrough")
@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """h(x) = 1 (Bengio et al. 2013)."""

    def derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


@identified("PotentialDependent")
@dataclass(frozen=True)
class PotentialDependent(Surrogate):
    """PDSG: a Gaussian whose width is the spread of its layer's potentials.

        h(x) = exp(-(x - σ/2)^2 / (2 σ^2)) / (sqrt(2π) σ),   σ = standard deviation of x, 1 where that is 0

    x [B, N]: σ over all neurons of a sample; x [B, C, ...]: over the positions of a channel of a sample; per time step.
    Source: Lun et al., CVPR 2025 (arXiv:2503.03272) and its code, for the shape, its centre at σ/2 and σ per channel.
    Different from the paper: its σ is over the batch and all steps so far, by which samples would change one another's
    gradient; ours is of the distance to the threshold, which has the spread of the potential only where θ is constant.
    """

    def derivative(self, x: Tensor) -> Tensor:
        width = spread(x)
        z = x / width - 0.5
        return (z.square() * -0.5).exp_().div_(width * math.sqrt(2 * math.pi))


def spread(x: Tensor) -> Tensor:
    """PDSG's σ, population standard deviation or 1 where that is 0: [B, N] -> [B, 1], [B, C, ...] -> [B, C, 1, ..]."""
    dims = tuple(range(2 if x.dim() > 2 else 1, x.dim()))
    sigma = x.std(dims, correction=0, keepdim=True) if dims else torch.zeros_like(x)
    return torch.where(sigma > 0, sigma, torch.ones_like(sigma))


SURROGATES: tuple[type[Surrogate], ...] = (
    Sigmoid,
    FastSigmoid,
    Arctan,
    PiecewiseLinear,
    Rectangle,
    Exponential,
    StraightThrough,
)
"""The fixed shapes, elementwise in x."""
