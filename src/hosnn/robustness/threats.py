"""Threat models as values: a ball, the valid pixel domain and grid, one perturbation per image or one per time step.

Shapes: inputs [B, ...]; a ball's geometry acts on each sample as a whole.  Budgets are in pixel units (0 to 1).
"""

import math
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT, identified
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

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        """Which pixels of a perturbation of whole numbers may grow by 1 within the norm `limit`: [B, N] bool.

        whole  absolute values [B, N], of norm at most limit [B, 1]
        gain   by how much each pixel's growth lowers the squared distance to the point that is rounded [B, N]
        """
        raise TypeError(f"{type(self).__name__} does not define round_up(whole, gain, limit)")

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

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        return (gain > 0) & (whole + 1 <= limit)


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

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        return _best_first(2 * whole + 1, gain, limit.square() - whole.square().sum(1, keepdim=True))


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

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        return _best_first(torch.ones_like(whole), gain, limit - whole.sum(1, keepdim=True))


def _best_first(cost: Tensor, gain: Tensor, left: Tensor) -> Tensor:
    """Which pixels to take so that their costs sum to at most `left` [B, 1], the most gain per cost first: [B, N] bool.

    Pixels without gain are not taken.
    """
    value = gain / cost
    order = value.argsort(dim=1, descending=True, stable=True)
    affordable = cost.gather(1, order).cumsum(1) <= left
    return (gain > 0) & torch.zeros_like(affordable).scatter(1, order, affordable)


BALLS: tuple[type[Ball], ...] = (Linf, L2, L1)


@identified("Threat")
@dataclass(frozen=True)
class Threat:
    """A threat model: x may be moved within `ball` around it, and stays in the valid pixel `domain`.

    domain    valid pixel range; None only to reproduce evaluations that ignored it (the `paper` protocol)
    per_step  every time step has its own perturbation: the attacked input is frames [B, T, ...], not one image
    bits      adversarial images, as x, have pixels k / (2^bits - 1), as an image file has; None: any real number
    `parse` reads `linf:8/255`, `linf:8/255/step` and `linf:8/255@8bit`, `str` gives them back.
    Raises ConfigError for bits outside 1..16, and for bits without the domain [0, 1].
    """

    ball: Ball
    domain: tuple[float, float] | None = (0.0, 1.0)
    per_step: bool = False
    bits: int | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        if self.bits is None:
            return
        if not 1 <= self.bits <= 16:
            raise ConfigError(f"the threat got {self.bits} bits per pixel; expected 1 to 16, e.g. linf:8/255@8bit")
        if self.domain != (0.0, 1.0):
            raise ConfigError(
                f"a threat to images of {self.bits} bits got the pixel domain {self.domain}; expected (0, 1), all that "
                f"{self.bits} bits hold; leave out @{self.bits}bit (paper and choices attack without a domain)"
            )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x_adv projected into the ball around x, then clipped to the domain and rounded.  [B, ...] -> [B, ...]"""
        moved = x + self.ball.project(x_adv - x)
        return self.rounded(moved if self.domain is None else moved.clamp(*self.domain), x)

    def rounded(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The grid point nearest to x_adv that leaves neither the ball around x nor, if x_adv lies outside, moves
        further from x; x_adv itself without `bits`.  [B, ...] -> [B, ...]

        Exact in linf and l1; in l2 nearly so (which pixels are rounded away from x is a knapsack problem, solved
        greedily).  x must be on the grid.
        """
        if self.bits is None:
            return x_adv
        levels, precise = 2**self.bits - 1, torch.promote_types(x.dtype, torch.float32)
        clean = (x.to(precise) * levels).round()
        change = x_adv.to(precise) * levels - clean
        limit = self.ball.size(change).clamp(min=self.ball.eps * levels)[:, None] + 1e-4  # float32's rounding
        distance = change.abs().flatten(1)
        whole = distance.floor()
        whole = whole + self.ball.round_up(whole, 2 * (distance - whole) - 1, limit)
        point = ((clean + whole.view_as(change) * change.sign()) / levels).to(x.dtype)
        return torch.where(whole.view_as(change) == 0, x, point)

    def on_grid(self, x: Tensor, atol: float = 1e-6) -> Tensor:
        """Whether all pixels of each image are multiples of 1 / (2^bits - 1); True without `bits`.  [B, ...] -> [B]"""
        if self.bits is None:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        levels, precise = 2**self.bits - 1, x.to(torch.promote_types(x.dtype, torch.float32))
        distance = (precise - (precise * levels).round() / levels).abs().flatten(1)
        near: Tensor = distance.amax(1) <= max(atol, torch.finfo(x.dtype).eps)
        return near

    def allows(self, x_adv: Tensor, x: Tensor, atol: float = 1e-6) -> Tensor:
        """Whether each x_adv lies in the ball around its x and in the domain.  [B, ...] -> [B] bool"""
        allowed = self.ball.size(x_adv - x) <= self.ball.eps * (1 + 1e-5) + atol
        if self.domain is not None:
            low, high = self.domain
            flat = x_adv.flatten(1)
            allowed &= (flat >= low - atol).all(1) & (flat <= high + atol).all(1)
        return allowed & self.on_grid(x_adv, atol)

    @property
    def relaxed(self) -> "Threat":
        """The same threat to images of real numbers."""
        return replace(self, bits=None)

    def scaled(self, factor: float) -> "Threat":
        """The same threat with eps multiplied by `factor`."""
        return replace(self, ball=replace(self.ball, eps=self.ball.eps * factor))

    def with_eps(self, eps: float) -> "Threat":
        """The same threat with another eps."""
        return replace(self, ball=replace(self.ball, eps=eps))

    def __str__(self) -> str:
        return f"{self.ball}{'/step' if self.per_step else ''}{'' if self.bits is None else f'@{self.bits}bit'}"

    @classmethod
    def parse(cls, text: str) -> "Threat":
        """`norm:eps[/step][@Nbit]`, eps a number or a fraction.  Raises ConfigError for anything else."""
        space, at, grid = text.strip().lower().partition("@")
        name, _, size = space.partition(":")
        per_step = size.endswith("/step")
        ball = {kind.name: kind for kind in BALLS}.get(name)
        if ball is None or not size or bool(at) != bool(re.fullmatch("[0-9]{1,2}bit", grid)):
            expected = "norm:eps with norm linf, l2 or l1, e.g. linf:8/255, or linf:8/255@8bit for images of 8 bits"
            raise ConfigError(f"threat got {text!r}; expected {expected}")
        bits = int(grid.removesuffix("bit")) if at else None
        return cls(ball(parse_eps(size.removesuffix("/step"))), per_step=per_step, bits=bits)


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
