"""Balls: what size a perturbation may have, and where it is largest for a loss.

Shapes: perturbations [B, ...]; a ball's geometry acts on each sample as a whole.  Budgets are in pixel units (0 to 1).
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Self

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

    def furthest(self, gradient: Tensor, at: Tensor) -> Tensor:
        """The perturbation of `at` inside the ball that raises a loss most, to first order: [B, ...] -> [B, ...]."""
        return self.eps * self.steepest(gradient)

    def scaled(self, factor: float) -> Self:
        """The same ball with eps multiplied by `factor`."""
        return replace(self, eps=self.eps * factor)

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        """A random perturbation inside the ball, in the shape of `like` [B, ...]."""
        raise TypeError(f"{type(self).__name__} does not define sample(like, rng)")

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        """Which pixels of a perturbation of whole numbers may grow by 1 within the norm `limit`: [B, N] bool.

        whole  absolute values [B, N], of norm at most limit [B, 1]
        gain   by how much each pixel's growth lowers the squared distance to the point that is rounded [B, N]
        """
        raise TypeError(f"{type(self).__name__} does not define round_up(whole, gain, limit)")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The ball whose eps is a number or a fraction.  Raises ConfigError for anything else."""
        return cls(parse_eps(text))

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


@identified("Events")
@dataclass(frozen=True)
class Events(Ball):
    """At most so many events of a recording added or removed, whole ones, no two at the same place.

    Frames [B, T, C, H, W] hold at each place (time bin, polarity, pixel) the number of events over `maximum`, the most
    that it can have; binary frames have a maximum of 1.
    eps  the number of events over `maximum`, as delta is measured:  sum |delta| <= eps
    Raises ConfigError unless eps · maximum is a whole number.
    """

    name: ClassVar[str] = "events"
    maximum: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum < 1 or abs(self.eps * self.maximum - self.count) > 1e-6:
            raise ConfigError(
                f"Events got eps = {self.eps!r} and maximum = {self.maximum!r}; expected a whole number of events over "
                "the most of a place, e.g. 20/8"
            )

    @classmethod
    def of(cls, count: int, maximum: int) -> Self:
        """At most `count` events, in frames of at most `maximum` of them at a place."""
        return cls(count / maximum, maximum)

    @classmethod
    def parse(cls, text: str) -> Self:
        count, _, maximum = text.partition("/")
        if not count.isdecimal() or not (maximum or "1").isdecimal() or int(maximum or 1) < 1:
            raise ConfigError(
                f"events got {text!r}; expected the number of events and the most of a place, by which frames are "
                "divided, e.g. events:20/8, or events:20 for binary frames"
            )
        return cls.of(int(count), int(maximum or 1))

    @property
    def count(self) -> int:
        """The most events that may change."""
        return round(self.eps * self.maximum)

    @property
    def unit(self) -> float:
        """What one event adds to a frame."""
        return 1 / self.maximum

    def size(self, delta: Tensor) -> Tensor:
        """sum |delta|; infinite where a place changes by another number than one event."""
        changes = (delta.flatten(1) * self.maximum).abs()
        whole = ((changes - changes.round()).abs() < 1e-3) & (changes < 1.5)
        return torch.where(whole.all(1), changes.round().sum(1) / self.maximum, math.inf)

    def project(self, delta: Tensor) -> Tensor:
        changes = delta.flatten(1) * self.maximum
        size, place = changes.abs().topk(min(self.count, changes.shape[1]), dim=1)
        chosen = torch.zeros_like(changes).scatter(1, place, (size > 0.5).to(changes))
        return (self.unit * chosen * changes.sign()).view_as(delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        return L1(self.eps).steepest(gradient)

    def furthest(self, gradient: Tensor, at: Tensor) -> Tensor:
        """All events that the budget allows, added where the gradient is highest and removed where it is lowest; only
        where there is room, and none where the gradient is zero."""
        room = torch.where(gradient > 0, at < 1 - self.unit / 2, at > self.unit / 2)
        gain = torch.where(room, gradient.abs(), 0).flatten(1)
        value, place = gain.topk(min(self.count, gain.shape[1]), dim=1)
        chosen = torch.zeros_like(gain).scatter(1, place, (value > 0).to(gain)).view_as(at)
        return self.unit * chosen * gradient.sign()

    def scaled(self, factor: float) -> Self:
        """The same ball with the number of events multiplied by `factor`, rounded, and at least one if any."""
        return self.of(max(round(self.count * factor), min(self.count, 1)), self.maximum)

    def sample(self, like: Tensor, rng: SampleRandom) -> Tensor:
        """All events that the budget allows, at random places of the frames `like`: added or removed at random, but
        added where there is none and removed where no more fit."""
        keys = rng.fold("place").uniform(like).flatten(1)
        places = keys.topk(min(self.count, keys.shape[1]), dim=1).indices
        chosen = torch.zeros_like(keys).scatter(1, places, 1.0).view_as(like)
        add = rng.fold("sign").sign(like) > 0
        add = (add | (like < self.unit / 2)) & (like < 1 - self.unit / 2)
        return self.unit * chosen * torch.where(add, 1.0, -1.0)

    def round_up(self, whole: Tensor, gain: Tensor, limit: Tensor) -> Tensor:
        return torch.zeros_like(whole, dtype=torch.bool)  # projections are whole already

    def __str__(self) -> str:
        return f"{self.name}:{self.count}/{self.maximum}"


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
