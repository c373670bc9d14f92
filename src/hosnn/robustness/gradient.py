"""Projected gradient attacks, and their constructors FGSM, R-FGSM and BIM.

An attack is a frozen value called with (model, x, y, rng) -> x_adv.  Shapes: x [B, ...], y [B], scores [B, K].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.robustness.losses import Loss, cross_entropy
from hosnn.robustness.model import Attack, Model, input_gradient, rows, scores
from hosnn.robustness.random import SampleRandom
from hosnn.robustness.threats import Ball, Threat, per_sample

Start = Callable[[Ball, Tensor, SampleRandom], Tensor]


def at_clean(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at x itself."""
    return torch.zeros_like(x)


def uniform_in_ball(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at a random point of the ball (Madry et al. 2018)."""
    return ball.sample(x, rng)


def half_eps_signs(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at x ± eps/2, signs at random (R-FGSM, Tramer et al. 2018)."""
    return ball.eps / 2 * rng.sign(x)


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent on a loss (Madry et al. 2018):  x <- P(x + step_size · eps · steepest(grad)).

    step_size  a fraction of eps
    restarts   independent runs; the first adversarial point found is kept
    keep_best  return an adversarial point passed on the way rather than the last point
    """

    threat: Threat
    steps: int = 20
    step_size: float = 0.1
    start: Start = uniform_in_ball
    restarts: int = 1
    keep_best: bool = True
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ConfigError(
                f"PGD got steps = {self.steps}, restarts = {self.restarts}, step_size = {self.step_size}; "
                "expected at least 1 step and restart, and a step size > 0 (a fraction of eps)"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        if self.restarts > 1:
            once = replace(self, restarts=1)
            return first_success(
                [
                    lambda model, x, y, rng, number=number: once(
                        model, x, y, rng.fold("restart", number) if number else rng
                    )
                    for number in range(self.restarts)
                ],
                model,
                x,
                y,
                rng,
            )
        ball = self.threat.ball
        x_adv = self.threat.project(x + self.start(ball, x, rng.fold("start")), x)
        found, best = torch.zeros_like(y, dtype=torch.bool), x_adv
        for _ in range(self.steps):
            ascent = input_gradient(model, x_adv, y, self.loss)
            if self.keep_best:
                wrong = ascent.scores.argmax(1) != y
                best = torch.where(per_sample(wrong & ~found, x), x_adv, best)
                found |= wrong
            # A gradient that is not a number would move pixels to NaN, out of every threat: stand still there instead.
            step = self.step_size * ball.eps * ball.steepest(ascent.gradient.nan_to_num())
            x_adv = self.threat.project(x_adv + step, x)
        return torch.where(per_sample(found, x), best, x_adv)


def fgsm(threat: Threat, loss: Loss = cross_entropy) -> PGD:
    """One full step along the steepest direction (Goodfellow et al. 2015)."""
    return PGD(threat, steps=1, step_size=1.0, start=at_clean, keep_best=False, loss=loss)


def r_fgsm(threat: Threat, loss: Loss = cross_entropy) -> PGD:
    """A random sign step of eps/2, then FGSM with eps/2 (Tramer et al. 2018; authors' code)."""
    return PGD(threat, steps=1, step_size=0.5, start=half_eps_signs, keep_best=False, loss=loss)


def bim(threat: Threat, steps: int = 7, loss: Loss = cross_entropy) -> PGD:
    """Iterated FGSM with steps of eps/steps from the clean image (Kurakin et al. 2017)."""
    return PGD(threat, steps=steps, step_size=1 / steps, start=at_clean, keep_best=False, loss=loss)


def first_success(attacks: "list[Attack]", model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    """Run attacks in turn on the samples still standing; per sample the first adversarial point, else the last one."""
    x_adv = x.clone()
    standing = torch.arange(len(y), device=y.device)
    for attack in attacks:
        candidate = attack(rows(model, standing), x[standing], y[standing], rng.rows(standing))
        if len(standing) == len(y):
            x_adv = candidate.clone()  # may have another shape than x: frames, one per time step
        else:
            x_adv[standing] = candidate
        standing = standing[scores(rows(model, standing), candidate).argmax(1) == y[standing]]
        if len(standing) == 0:
            break
    return x_adv
