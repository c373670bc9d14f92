"""Random search with squares, by scores and without gradients (Andriushchenko et al. 2020, arXiv:1912.00049).

Shapes: inputs [B, ..., H, W]; all dimensions between B and H are channels C (colours, time steps): the search runs on
[B, C, H, W].  Inputs of fewer dimensions are images of one channel, or of one row.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Linf, per_sample
from hosnn.robustness.grid import through_grid
from hosnn.robustness.losses import margin, misclassified
from hosnn.robustness.model import Model, scores, subset
from hosnn.robustness.threats import Threat

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share of pixels changed at a time halves (the authors' schedule)."""


@identified("Square")
@dataclass(frozen=True)
class Square:
    """Change one square at a time and keep what raises the margin loss.

    threat    Linf (squares of x ± eps) or L2 (perturbation moved from one square to another)
    queries   at most this many per sample and restart; none after the sample is misclassified
    p         share of the pixels that the first squares cover; later ones are smaller, on a schedule over `queries`
    restarts  independent searches, each on the samples that none before it fooled
    Every sample has random positions and signs of its own; at one query all samples have squares of the same size.
    Raises ConfigError for other balls.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    threat: Threat
    queries: int = 5000
    p: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.threat.ball, (Linf, L2)):
            raise ConfigError(
                f"Square got the threat {self.threat}; it supports linf and l2 only; use PGD or FAB for l1"
            )
        if self.queries < 1 or self.restarts < 1 or not 0 < self.p <= 1:
            raise ConfigError(
                f"Square got queries = {self.queries}, restarts = {self.restarts}, p = {self.p}; "
                "expected at least 1 query and restart, and a share of the pixels 0 < p <= 1"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        x_adv = x.clone()
        robust = torch.arange(len(y), device=y.device)
        for number in range(self.restarts):
            restart = rng.subset(robust).fold("square", "restart", number)
            x_adv[robust], fooled = self._search(subset(model, robust), x[robust], y[robust], restart)
            robust = robust[~fooled]
        return x_adv

    def _search(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> tuple[Tensor, Tensor]:
        """One search: points [B, ...], and whether the model is wrong on them [B]."""
        model, threat = through_grid(model, self.threat, x), self.threat.relaxed
        result, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
        robust = torch.arange(len(y), device=y.device)
        clean, robust_model = _image(x), model
        start, change = (_stripes, _recolour) if isinstance(self.threat.ball, Linf) else (_tiles, _move)
        best, highest = clean, torch.full(y.shape, -math.inf, dtype=x.dtype, device=x.device)
        for query in range(self.queries):
            if not len(robust):
                break
            stream = rng.subset(robust).fold("square", query)
            if query:
                halved = sum(query * 10_000 // self.queries > limit for limit in HALVED_AFTER)
                candidate = change(threat, clean, best, self.p / 2**halved, stream)
            else:
                candidate = start(threat, clean, stream)
            logits = scores(robust_model, candidate.view(-1, *x.shape[1:]))
            value, wrong = margin(logits, y[robust]), misclassified(logits, y[robust])
            better = wrong | (value > highest)
            best, highest = torch.where(per_sample(better, best), candidate, best), torch.where(better, value, highest)
            if query == self.queries - 1 or wrong.any():
                result[robust], fooled[robust] = best.view(-1, *x.shape[1:]), wrong
                robust, clean, best, highest = (value[~wrong] for value in (robust, clean, best, highest))
                robust_model = subset(model, robust)
        return self.threat.rounded(result, x), fooled


def _image(x: Tensor) -> Tensor:
    """[B, ..., H, W] -> [B, C, H, W]"""
    height, width = (1, *x.shape[1:])[-2:]
    return x.reshape(len(x), math.prod(x.shape[1:]) // (height * width), height, width)


def _numbers(x: Tensor, count: int, rng: SampleRandom) -> Tensor:
    """Uniform [B, count], in float32 whatever the images' dtype, because half precision would round positions."""
    return rng.uniform(torch.empty(len(x), count, device=x.device))


def _signs(numbers: Tensor, like: Tensor) -> Tensor:
    """-1 or 1 of uniform numbers, as [B, C, 1, 1]."""
    return ((numbers < 0.5).to(like.dtype) * 2 - 1)[:, :, None, None]


def _position(number: Tensor, side: int, length: int) -> Tensor:
    """The first pixel of a window of `side` pixels among `length`, each with equal chance: [B] -> [B] int64"""
    return (number * (length - side + 1)).long().clamp(max=length - side)


def _stripes(threat: Threat, x: Tensor, rng: SampleRandom) -> Tensor:
    """x ± eps in vertical stripes one pixel wide."""
    signs = rng.sign(x[:, :, :1])
    return threat.project(x + threat.ball.eps * signs, x)


def _recolour(threat: Threat, x: Tensor, best: Tensor, share: float, rng: SampleRandom) -> Tensor:
    """A window of x ± eps, one sign per channel, in an otherwise unchanged point."""
    channels, height, width = x.shape[1:]
    side = max(round(math.sqrt(share * height * width)), 1)
    tall, wide = min(side, height), min(side, width)
    numbers = _numbers(x, 2 + channels, rng)
    top, left = _position(numbers[:, 0], tall, height)[:, None], _position(numbers[:, 1], wide, width)[:, None]
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside = ((row >= top) & (row < top + tall))[:, None, :, None] & ((column >= left) & (column < left + wide))[
        :, None, None
    ]
    return torch.where(inside, threat.project(x + threat.ball.eps * _signs(numbers[:, 2:], x), x), best)


def _tiles(threat: Threat, x: Tensor, rng: SampleRandom) -> Tensor:
    """Bumps, one positive and one negative half each, in a grid of about five by five tiles."""
    channels, height, width = x.shape[1:]
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    numbers = _numbers(x, down * across * (channels + 1), rng).view(len(x), down * across, channels + 1)
    delta = torch.zeros_like(x)
    first_row, first_column = (height - down * side) // 2, (width - across * side) // 2
    for tile in range(down * across):
        top, left = first_row + tile // across * side, first_column + tile % across * side
        bump = _bump(side, numbers[:, tile, 0], x) * _signs(numbers[:, tile, 1:], x)
        delta[:, :, top : top + side, left : left + side] = bump
    return _on_surface(threat, x, delta)


def _move(threat: Threat, x: Tensor, best: Tensor, share: float, rng: SampleRandom) -> Tensor:
    """Set one window to 0 and use its squared length, and what eps leaves unused, for a bump in another."""
    channels, height, width = x.shape[1:]
    side = max(round(math.sqrt(share * height * width)), 3)
    side = min(side + (side % 2 == 0), height, width)
    numbers = _numbers(x, 5 + channels, rng)
    to, source = (
        _window(_position(numbers[:, i], side, height), _position(numbers[:, i + 1], side, width), side, x)
        for i in (0, 2)
    )
    delta = (best - x).flatten(2)
    unused = (threat.ball.eps**2 - delta.square().sum((1, 2), keepdim=True)).clamp(min=0) / channels
    cleared = delta.scatter(2, source, 0).scatter(2, to, 0)
    freed = (delta - cleared).square().sum(2, keepdim=True)
    bump = (_bump(side, numbers[:, 4], x) * _signs(numbers[:, 5:], x)).flatten(2)
    bump = _unit(bump + _unit(delta.gather(2, to))) * (unused + freed).sqrt()
    return _on_surface(threat, x, cleared.scatter(2, to, bump).view_as(x))


def _window(top: Tensor, left: Tensor, side: int, like: Tensor) -> Tensor:
    """Positions of a window's pixels in `like.flatten(2)`: [B, C, side * side]"""
    step = torch.arange(side, device=like.device)
    row_start = (top[:, None] + step)[:, :, None] * like.shape[3]
    return (row_start + (left[:, None] + step)[:, None]).view(len(like), 1, -1).expand(-1, like.shape[1], -1)


def _bump(side: int, transpose: Tensor, like: Tensor) -> Tensor:
    """A positive hill beside a negative one, of unit length, transposed for half of the samples: [B, 1, side, side]"""
    upper = side // 2
    shape = torch.cat((_hill(upper, side), -_hill(side - upper, side))).to(like)
    shape = shape / shape.square().sum().sqrt()
    return torch.where(transpose[:, None, None] < 0.5, shape, shape.T)[:, None]


def _hill(height: int, width: int) -> Tensor:
    """Of unit length; at r king's moves from the middle its height goes as the sum of 1 / (k + 1)^2 over k >= r."""
    middle, across = height // 2, width // 2
    levels = (torch.arange(max(middle, across) + 1, 0, -1).double() ** -2).cumsum(0).flip(0)
    row, column = torch.arange(height), torch.arange(width)
    hill = levels[torch.maximum((row - middle).abs()[:, None], (column - across).abs())]
    unit: Tensor = hill / hill.square().sum().sqrt().clamp(min=1)
    return unit


def _unit(delta: Tensor) -> Tensor:
    """Each channel divided by its length: [B, C, N] -> [B, C, N]"""
    length: Tensor = torch.linalg.vector_norm(delta, dim=2, keepdim=True)
    return delta / length.clamp(min=torch.finfo(delta.dtype).tiny)


def _on_surface(threat: Threat, x: Tensor, delta: Tensor) -> Tensor:
    """The point of the ball's surface in the direction of delta, cut to the domain."""
    return threat.project(x + threat.ball.eps * threat.ball.steepest(delta), x)
