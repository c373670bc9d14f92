"""Threat models as values: a ball, the valid pixel domain and grid, one perturbation per image or one per time step.

Shapes: inputs [B, ...].  Budgets are in pixel units (0 to 1).
"""

import re
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT, identified
from hosnn.robustness.balls import L1, L2, Ball, Events, Linf

NORMS: tuple[type[Ball], ...] = (Linf, L2, L1)
BALLS: tuple[type[Ball], ...] = (*NORMS, Events)


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
        if isinstance(self.ball, Events):
            raise ConfigError(
                f"the threat {self.ball} got {self.bits} bits per pixel; expected none, for frames hold whole events"
            )
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

    @property
    def levels(self) -> int | None:
        """Pixels are multiples of 1 / levels: 2^bits - 1, of frames of events their maximum; None: any numbers."""
        if isinstance(self.ball, Events):
            return self.ball.maximum
        return None if self.bits is None else 2**self.bits - 1

    def on_grid(self, x: Tensor, atol: float = 1e-6) -> Tensor:
        """Whether all pixels of each image are multiples of 1 / `levels`; True without.  [B, ...] -> [B] bool"""
        if self.levels is None:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        levels, precise = self.levels, x.to(torch.promote_types(x.dtype, torch.float32))
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
        """The same threat to images of real numbers; of one to events, the l1 ball that holds it."""
        return replace(self, bits=None, ball=L1(self.ball.eps) if isinstance(self.ball, Events) else self.ball)

    def scaled(self, factor: float) -> "Threat":
        """The same threat with eps multiplied by `factor`; of events to the nearest whole number."""
        return replace(self, ball=self.ball.scaled(factor))

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
            expected = (
                "norm:eps with norm linf, l2 or l1, e.g. linf:8/255, or linf:8/255@8bit for images of 8 bits, or "
                "events:N/MAXIMUM"
            )
            raise ConfigError(f"threat got {text!r}; expected {expected}")
        bits = int(grid.removesuffix("bit")) if at else None
        return cls(ball.parse(size.removesuffix("/step")), per_step=per_step, bits=bits)


DEFAULT_THREAT = Threat(Linf(8 / 255))
"""What robustness is usually measured under."""
