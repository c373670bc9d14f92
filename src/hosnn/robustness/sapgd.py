"""Stable adaptive PGD, made for the rough loss of spiking networks (Wang et al. 2025, arXiv 2512.22522).

Shapes: x [B, ...], y [B].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import Climb, Schedule, Walk, restarted
from hosnn.robustness.losses import Loss, cross_entropy
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import Start, on_sphere, unit_largest, unit_mean
from hosnn.robustness.threats import Linf, Threat, per_sample


def moments(threat: Threat, walk: Walk) -> tuple[Tensor, tuple[Tensor, ...]]:
    """SA-PGD's step, s the size of it; means are over the sample:

    m <- 0.5 m + g / mean|g|;    v <- 0.8 v + g² / mean(g²);    x <- P(x + s · eps · clip(m / sqrt(v), -1, 1))
    """
    gradient = unit_mean(walk.gradient)
    square = unit_mean(unit_largest(walk.gradient).square())
    if walk.memory:
        first, second = walk.memory
        gradient, square = 0.5 * first + gradient, 0.8 * second + square
    direction = gradient / torch.where(square > 0, square, 1).sqrt()
    step = per_sample(walk.size * threat.ball.eps, walk.x) * direction.clamp(-1, 1)
    return threat.project(walk.x_adv + step, walk.x), (gradient, square)


@identified("SAPGD")
@dataclass(frozen=True)
class SAPGD:
    """Stable adaptive PGD (arXiv 2512.22522): momentum over the root of the gradient's second moment, pixel by pixel,
    each step clipped to its size: eps at first, halved at every one of Auto-PGD's checkpoints.

    Halving is unconditional and the walk goes on from where it is, as in the authors' code: with the noisy gradients
    of a spiking network, whether a step raised the loss says little.
    Returns per sample an adversarial point met on the way, else the point of largest loss.
    Linf only, as in the paper: steps scaled pixel by pixel come close to a sign, and in L2 would not lead to the
    optimum even of a linear model.  Raises ConfigError for other balls.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    threat: Threat
    steps: int = 100
    restarts: int = 1
    loss: Loss = cross_entropy
    start: Start = on_sphere

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ConfigError(
                f"SAPGD got steps = {self.steps}, restarts = {self.restarts}; expected at least 1 of each"
            )
        if not isinstance(self.threat.ball, Linf):
            raise ConfigError(f"SAPGD got the threat {self.threat}; it supports linf only; use APGD for l2")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        climb = Climb(self.threat, self.start, moments, 1.0, Schedule(self.steps, rho=float("inf"), from_best=False))
        return restarted(climb, self.restarts, self.loss, model, x, y, rng)
