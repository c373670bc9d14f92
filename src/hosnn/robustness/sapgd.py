"""Stable adaptive PGD, made for the noisy gradients of spiking networks (Wang et al. 2025, arXiv 2512.22522).

Shapes: x [B, ...], y [B].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf, per_sample
from hosnn.robustness.losses import Loss, cross_entropy
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import Start, on_sphere, unit_largest, unit_mean
from hosnn.robustness.scheduled_ascent import AscentState, Schedule, ScheduledAscent, with_restarts
from hosnn.robustness.threats import Threat


def adaptive_moment_step(threat: Threat, state: AscentState) -> tuple[Tensor, tuple[Tensor, ...]]:
    """SA-PGD's step, s its size; means are over the pixels of a sample:

    m <- 0.5 m + g / mean|g|;    v <- 0.8 v + g² / mean(g²);    x <- P(x + s · eps · clip(m / sqrt(v), -1, 1))
    """
    gradient = unit_mean(state.gradient)
    square = unit_mean(unit_largest(state.gradient).square())
    if state.momentum:
        first, second = state.momentum
        gradient, square = 0.5 * first + gradient, 0.8 * second + square
    direction = gradient / torch.where(square > 0, square, 1).sqrt()
    step = per_sample(state.step_size * threat.ball.eps, state.x) * direction.clamp(-1, 1)
    return threat.project(state.x_adv + step, state.x), (gradient, square)


@identified("SAPGD")
@dataclass(frozen=True)
class SAPGD:
    """Stable adaptive PGD (arXiv 2512.22522): momentum over the root of the gradient's second moment, pixel by pixel,
    each step clipped to its size: eps at first, halved at every one of Auto-PGD's checkpoints.

    Halving is unconditional and continues from the current point, not the best one, as in the authors' code: with the
    noisy gradients of a spiking network, whether a step raised the loss means little.
    Returns per sample the first adversarial point reached, else the point of largest loss.
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
        schedule = Schedule(self.steps, rho=float("inf"), from_best=False)
        ascent = ScheduledAscent(self.threat, self.start, adaptive_moment_step, 1.0, schedule)
        return with_restarts(ascent, self.restarts, self.loss, model, x, y, rng)
