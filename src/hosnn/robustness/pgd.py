"""Projected gradient attacks, and their constructors FGSM, R-FGSM, BIM and MI-FGSM.

An attack is a frozen value called with (model, x, y, rng) -> x_adv.  Shapes: x [B, ...], y [B], scores [B, K].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Ball, per_sample
from hosnn.robustness.grid import through_grid
from hosnn.robustness.losses import Loss, cross_entropy, lost, misclassified, tied
from hosnn.robustness.model import Attack, Model, input_gradient, scores, subset, without_state
from hosnn.robustness.threats import Threat

Start = Callable[[Ball, Tensor, SampleRandom], Tensor]


@identified("at_clean")
def at_clean(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at x itself."""
    return torch.zeros_like(x)


@identified("uniform_in_ball")
def uniform_in_ball(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at a random point of the ball (Madry et al. 2018)."""
    return ball.sample(x, rng)


@identified("half_eps_signs")
def half_eps_signs(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at x ± eps/2, signs at random (R-FGSM, Tramer et al. 2018)."""
    return ball.eps / 2 * rng.sign(x)


@identified("on_sphere")
def on_sphere(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at a random point of the ball's surface, as AutoAttack does."""
    delta = ball.sample(x, rng)
    size = ball.size(delta).clamp(min=torch.finfo(x.dtype).tiny)
    return ball.project(delta * per_sample(ball.eps / size, x))


@identified("PGD")
@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent on a loss (Madry et al. 2018):  x <- P(x + step_size · eps · steepest(g)).

        g <- momentum · g + grad / mean|grad|      with momentum (Dong et al. 2018), else g = grad

    step_size  a fraction of eps
    restarts   independent runs, until one gives an adversarial point
    keep_best  return the first adversarial point reached rather than the last point, and rather than a last point that
               is right one on the way at which the label shared the largest logit.  A sample that has an adversarial
               point costs no more passes; turn this off to craft with BatchNorm in training mode, where samples
               influence each other
    """

    threat: Threat
    steps: int = 20
    step_size: float = 0.1
    start: Start = uniform_in_ball
    restarts: int = 1
    keep_best: bool = True
    loss: Loss = cross_entropy
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ConfigError(
                f"PGD got steps = {self.steps}, restarts = {self.restarts}, step_size = {self.step_size}; "
                "expected at least 1 step and restart, and a step size > 0 (a fraction of eps)"
            )
        if not (math.isfinite(self.momentum) and self.momentum >= 0):
            raise ConfigError(f"PGD got momentum = {self.momentum}; expected a number >= 0, 1 as in MI-FGSM")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        if self.restarts > 1:
            once = replace(self, restarts=1)
            return first_success([Restart(once, number) for number in range(self.restarts)], model, x, y, rng)
        clean, model, threat = x, through_grid(model, self.threat, x), self.threat.relaxed
        x_adv = threat.project(x + self.start(threat.ball, x, rng.fold("start")), x)
        result, remaining = x_adv.clone(), torch.arange(len(y), device=y.device)
        direction = torch.zeros_like(x_adv)
        in_a_tie = torch.zeros_like(remaining, dtype=torch.bool)
        for _ in range(self.steps):
            evaluated = input_gradient(model, x_adv, y, self.loss)
            # A gradient that is not a number would move pixels to NaN, out of every threat: do not move there.
            gradient = evaluated.gradient.nan_to_num()
            if self.momentum:
                gradient = direction = self.momentum * direction + unit_mean(gradient)
            if self.keep_best and (tie := tied(evaluated.scores, y)).any():
                result[remaining[tie]], in_a_tie[remaining[tie]] = x_adv[tie], True
            if self.keep_best and (wrong := misclassified(evaluated.scores, y)).any():
                result[remaining[wrong]] = x_adv[wrong]
                model = subset(model, ~wrong)
                remaining, x, y, x_adv, gradient, direction = (
                    value[~wrong] for value in (remaining, x, y, x_adv, gradient, direction)
                )
                if len(remaining) == 0:
                    return self.threat.rounded(result, clean)
            step = self.step_size * threat.ball.eps * threat.ball.steepest(gradient)
            x_adv = threat.project(x_adv + step, x)
        better = ~in_a_tie[remaining]
        if not better.all():  # a tie on the way is kept unless the last point is as good
            seen = (~better).nonzero()[:, 0]
            better[seen] = lost(scores(subset(model, seen), x_adv[seen]), y[seen])
        result[remaining[better]] = x_adv[better]
        return self.threat.rounded(result, clean)


def fgsm(threat: Threat, loss: Loss = cross_entropy) -> PGD:
    """One full step along the steepest direction (Goodfellow et al. 2015)."""
    return PGD(threat, steps=1, step_size=1.0, start=at_clean, keep_best=False, loss=loss)


def r_fgsm(threat: Threat, loss: Loss = cross_entropy) -> PGD:
    """A random sign step of eps/2, then FGSM with eps/2 (Tramer et al. 2018; authors' code)."""
    return PGD(threat, steps=1, step_size=0.5, start=half_eps_signs, keep_best=False, loss=loss)


def bim(threat: Threat, steps: int = 7, loss: Loss = cross_entropy) -> PGD:
    """Iterated FGSM with steps of eps/steps from the clean image (Kurakin et al. 2017)."""
    return PGD(threat, steps=steps, step_size=1 / steps, start=at_clean, keep_best=False, loss=loss)


def mi_fgsm(threat: Threat, steps: int = 10, decay: float = 1.0, loss: Loss = cross_entropy) -> PGD:
    """BIM with momentum: g <- decay · g + grad/mean|grad| (Dong et al. 2018)."""
    return replace(bim(threat, steps, loss), momentum=decay)


def unit_largest(gradient: Tensor) -> Tensor:
    """Each sample's gradient over its largest absolute value; zero stays zero.  [B, ...] -> [B, ...]"""
    largest = gradient.flatten(1).abs().amax(1)
    return gradient / per_sample(torch.where(largest > 0, largest, 1), gradient)


def unit_mean(gradient: Tensor) -> Tensor:
    """Each sample's gradient over the mean of its absolute values; zero stays zero.  [B, ...] -> [B, ...]"""
    scaled = unit_largest(gradient)  # or the mean of tiny values would underflow
    mean = scaled.flatten(1).abs().mean(1)
    return scaled / per_sample(torch.where(mean > 0, mean, 1), gradient)


@identified("Again")
@dataclass(frozen=True)
class Restart:
    """One of several runs of `attack`, each with its own random stream; run 0 uses `rng` unchanged."""

    attack: Attack
    number: int
    purpose: str = "restart"

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.attack(model, x, y, rng.fold(self.purpose, self.number) if self.number else rng)


def first_success(attacks: Sequence[Attack], model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    """Run the attacks in order, each on the samples that none before it fooled.

    returns  per sample the first adversarial point; else a point at which the label only shares the highest logit, if
             an attack ended in one; else the last attack's point
    A model that keeps state (`ResettableModel`) starts each attack without state.
    """
    x_adv = x.clone()
    robust = torch.arange(len(y), device=y.device)
    in_a_tie = torch.zeros_like(robust, dtype=torch.bool)
    for number, attack in enumerate(attacks):
        model = without_state(model) if number else model
        candidate = attack(subset(model, robust), x[robust], y[robust], rng.subset(robust))
        reached = scores(subset(model, robust), candidate)
        wrong, tie = misclassified(reached, y[robust]), tied(reached, y[robust])
        if number:
            kept = per_sample(in_a_tie[robust] & ~wrong & ~tie, candidate)
            x_adv[robust] = torch.where(kept, x_adv[robust], candidate)
        else:
            x_adv = candidate.clone()  # may have another shape than x: frames, one per time step
        in_a_tie[robust] |= tie
        robust = robust[~wrong]
        if len(robust) == 0:
            break
    return x_adv
