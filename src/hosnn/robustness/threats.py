"""Threat models as values: a ball, the valid pixel domain, one perturbation per image or one per time step.

Shapes: inputs [B, ...]; a ball's geometry acts on each sample as a whole.  Budgets are in pixel units (0 to 1).
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom


@dataclass(frozen=True)
class Ball:
    """Perturbations of norm at most eps.  Raises ConfigError unless 0 <= eps is finite."""

    eps: float
    name: ClassVar[str] = ""
    whole_range: ClassVar[float] = math.inf  # the eps at which the ball around any image holds every image

    def __post_init__(self) -> None:
        if isinstance(self.eps, (str, bool)) or not (math.isfinite(self.eps) and self.eps >= 0):
            raise ConfigError(f"{type(self).__name__} got eps = {self.eps!r}; expected a number >= 0, e.g. 8/255")

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation: [B, ...] -> [B]."""
        raise TypeError(f"{type(self).__name__} does not define size(delta)")

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation (in L2) inside the ball: [B, ...] -> [B, ...]."""
        raise TypeError(f"{type(self).__name__} does not define project(delta)")

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit step that raises a loss most, to first order: [B, ...] -> [B, ...]."""
        raise TypeError(f"{type(self).__name__} does not define steepest(gradient)")

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        """A random perturbation inside the ball, in the shape of `like` [B, ...]."""
        raise TypeError(f"{type(self).__name__} does not define sample(like, rng)")

    def __str__(self) -> str:
        return f"{self.name}:{format_eps(self.eps)}"


@identified("Linf")
@dataclass(frozen=True)
class Linf(Ball):
    """max |delta| <= eps; eps at most 1, the width of the pixel range."""

    name: ClassVar[str] = "linf"
    whole_range: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise ConfigError(
                f"Linf got eps = {self.eps:g}; expected a fraction of the pixel range [0, 1], e.g. 8/255 "
                f"({self.eps:g}/255 if you meant {self.eps:g} grey levels)"
            )

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Tensor) -> Tensor:
        return delta.clamp(-self.eps, self.eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        return self.eps * (2 * rng.uniform(like) - 1)


@identified("L2")
@dataclass(frozen=True)
class L2(Ball):
    """Euclidean length <= eps."""

    name: ClassVar[str] = "l2"

    def size(self, delta: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def project(self, delta: Tensor) -> Tensor:
        length = per_sample(self.size(delta), delta)
        return torch.where(length > self.eps, delta * (self.eps / length.clamp(min=1e-30)), delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        # Scale first: squares of tiny gradients underflow, and a zero step would pass for robustness.
        largest = per_sample(gradient.flatten(1).abs().amax(1), gradient)
        scaled = gradient / torch.where(largest > 0, largest, 1)
        return scaled / per_sample(self.size(scaled), gradient).clamp(min=torch.finfo(scaled.dtype).tiny)

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        direction = rng.fold("direction").normal(like)
        radius = rng.fold("radius").uniform(like[:, :1].flatten(1)[:, :1]) ** (1 / math.prod(like.shape[1:]))
        return self.eps * self.steepest(direction) * per_sample(radius[:, 0], like)


@identified("L1")
@dataclass(frozen=True)
class L1(Ball):
    """sum |delta| <= eps."""

    name: ClassVar[str] = "l1"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Tensor) -> Tensor:
        """Soft-threshold at the level that leaves length eps (Duchi et al. 2008)."""
        flat = delta.flatten(1).abs()
        ordered = flat.sort(1, descending=True).values
        excess = ordered.cumsum(1) - self.eps
        count = torch.arange(1, flat.shape[1] + 1, device=delta.device)
        active = (ordered * count > excess).sum(1, keepdim=True).clamp(min=1)
        level = (excess.gather(1, active - 1) / active).clamp(min=0)
        return ((flat - level).clamp(min=0) * delta.flatten(1).sign()).view_as(delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        best = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, best, flat.gather(1, best).sign()).view_as(gradient)

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        """Uniform: exponential magnitudes normalised with one spare coordinate, random signs."""
        flat = like.flatten(1)
        spare = torch.cat([flat, flat[:, :1]], 1)
        magnitude = -torch.log1p(-rng.fold("magnitude").uniform(spare))
        share = magnitude[:, :-1] / magnitude.sum(1, keepdim=True).clamp(min=1e-30)
        return (self.eps * share * rng.fold("sign").sign(flat)).view_as(like)


BALLS: tuple[type[Ball], ...] = (Linf, L2, L1)


@identified("Threat")
@dataclass(frozen=True)
class Threat:
    """A threat model: x may be moved within `ball` around it, and stays in the valid pixel `domain`.

    domain    valid pixel range; None only to reproduce evaluations that ignored it (the `paper` protocol)
    per_step  every time step has its own perturbation: the attacked input is frames [B, T, ...], not one image
    `parse` reads `linf:8/255` and `linf:8/255/step`, `str` gives them back.
    """

    ball: Ball
    domain: tuple[float, float] | None = (0.0, 1.0)
    per_step: bool = False

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x_adv projected into the ball around x, then clipped to the domain.  [B, ...] -> [B, ...]"""
        moved = x + self.ball.project(x_adv - x)
        return moved if self.domain is None else moved.clamp(*self.domain)

    def allows(self, x_adv: Tensor, x: Tensor, atol: float = 1e-6) -> Tensor:
        """Whether each x_adv lies in the ball around its x and in the domain.  [B, ...] -> [B] bool"""
        allowed = self.ball.size(x_adv - x) <= self.ball.eps * (1 + 1e-5) + atol
        if self.domain is not None:
            low, high = self.domain
            flat = x_adv.flatten(1)
            allowed &= (flat >= low - atol).all(1) & (flat <= high + atol).all(1)
        return allowed

    def scaled(self, factor: float) -> "Threat":
        """The same threat with eps multiplied by `factor`."""
        return replace(self, ball=replace(self.ball, eps=self.ball.eps * factor))

    def with_eps(self, eps: float) -> "Threat":
        """The same threat with another eps."""
        return replace(self, ball=replace(self.ball, eps=eps))

    def __str__(self) -> str:
        return f"{self.ball}{'/step' if self.per_step else ''}"

    @classmethod
    def parse(cls, text: str) -> "Threat":
        """`norm:eps[/step]`, eps a number or a fraction.  Raises ConfigError for anything else."""
        name, _, size = text.strip().lower().partition(":")
        per_step = size.endswith("/step")
        ball = {kind.name: kind for kind in BALLS}.get(name)
        if ball is None or not size:
            raise ConfigError(f"threat got {text!r}; expected norm:eps with norm linf, l2 or l1, e.g. linf:8/255")
        return cls(ball(parse_eps(size.removesuffix("/step"))), per_step=per_step)


DEFAULT_THREAT = Threat(Linf(8 / 255))
"""What robustness is usually measured under."""


def parse_eps(text: str) -> float:
    """A number or a fraction such as 8/255.  Raises ConfigError for anything else."""
    number, slash, over = text.partition("/")
    try:
        return float(number) / (float(over) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"eps got {text!r}; expected a number or a fraction, e.g. 0.03 or 8/255") from None


def format_eps(eps: float) -> str:
    """The fraction over 255 (or another small denominator) that equals eps, else the number itself."""
    levels = round(eps * 255) if eps < 1 else 0
    if levels and levels / 255 == eps:
        return f"{levels}/255"
    fraction = Fraction(eps).limit_denominator(1000)
    if eps < 1000 and float(fraction) == eps:
        return str(fraction)
    return repr(float(eps))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...], to broadcast against `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))
