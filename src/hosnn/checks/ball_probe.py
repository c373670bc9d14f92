"""Is the gradient of use where attacks go: at random points of the ball, at FGSM's point and along a path of PGD?

A model may answer honestly on clean images only, and hide its margin and gradient once an image looks attacked.
Only points that are still classified correctly count: elsewhere a useless gradient hides nothing.
Shapes: x [n, ...] in [0, 1], y [n].  Costs about 56 forward and 4 backward passes per image.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hosnn.checks.fidelity import best_fidelity, run_trials
from hosnn.checks.measurements import (
    fraction,
    gradient_passes,
    noticeably_different,
    seeded_scores,
    without_gradient,
)
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2
from hosnn.robustness.losses import margin
from hosnn.robustness.model import InputGradient, Model
from hosnn.robustness.threats import Threat
from hosnn.runtime import seed_everything

PATH_POINTS, PATH_STEP = 3, 0.5
"""Points of PGD's path, the first of them random, and the step between them over eps."""

FAR = 0.5
"""A move of every pixel along the gradient's signs, which changes every margin but one that is hidden: a coarse one, as
where the same output neuron fires at every time step, changes too."""

TRIALS = 2
"""Random steps per point that the step along the gradient is compared with."""

FEWEST_POINTS = 20
"""Fewest points still classified correctly for shares of them to be given."""


@dataclass(frozen=True, kw_only=True)
class BallProbe:
    """Shares of `correct` points, the probed points that are still classified correctly and not tied.

    points          points probed in all
    zero_gradients  points where the margin's gradient is exactly zero, or not a number
    fidelity        trials in which a gradient step beats a random one, at the size `fidelity_eps`; where neither
                    changes the margin, half a trial if it is hidden (a move of FAR does not change it), else none
    other_logits    of all points, those whose logits differ between passes with and without a gradient
    None: fewer than FEWEST_POINTS are classified correctly, or no budget; `other_logits`: no points
    """

    points: int
    correct: int
    zero_gradients: float | None
    fidelity: float | None
    fidelity_eps: float
    other_logits: float | None


def probe_ball(
    model: Model, x: Tensor, y: Tensor, clean_gradients: Tensor, threat: Threat, rng: SampleRandom
) -> BallProbe:
    """Probe the ball of each image.  clean_gradients  of the margin at x  [n, ...]"""
    points = list(_points(model, x, y, clean_gradients, threat, rng)) if threat.ball.eps else []
    wins: dict[float, list[Tensor]] = {}
    zero, other_logits = [], []
    for number, (point, passes) in enumerate(points):
        scores = seeded_scores(model, point, 0)
        correct = margin(scores, y) < 0
        zero.append(without_gradient(passes.gradient)[correct])
        other_logits.append(noticeably_different(passes.scores, scores, scores))
        gradients, stream = passes.gradient.nan_to_num(), rng.fold("point", number)
        trials = run_trials(model, point, y, gradients, _of_dense_steps(threat, x), stream, TRIALS)
        far = (point + FAR * gradients.sign()).clamp(0, 1)
        hidden = margin(seeded_scores(model, far, 0), y) == margin(scores, y)
        flat = hidden & ~torch.stack([trial.changed for trial in trials.values()]).any(0)
        for size, trial in trials.items():
            wins.setdefault(size, []).append(trial.wins[(trial.changed | flat) & correct])
    counted = sum(map(len, zero))
    enough = counted >= FEWEST_POINTS
    best = best_fidelity({size: torch.cat(parts) for size, parts in wins.items()}) if enough else None
    return BallProbe(
        points=len(points) * len(y),
        correct=counted,
        zero_gradients=fraction(torch.cat(zero)) if enough else None,
        fidelity=best.share if best else None,
        fidelity_eps=best.eps if best else 0.0,
        other_logits=fraction(torch.cat(other_logits)) if points else None,
    )


def _of_dense_steps(threat: Threat, x: Tensor) -> Threat:
    """The threat whose steps trials compare: for L1, where a step moves one pixel, the L2 ball inside the ball."""
    if not isinstance(threat.ball, L1):
        return threat
    return replace(threat, ball=L2(threat.ball.eps / math.sqrt(x[0].numel())))


def _points(
    model: Model, x: Tensor, y: Tensor, clean_gradients: Tensor, threat: Threat, rng: SampleRandom
) -> Iterator[tuple[Tensor, InputGradient]]:
    """FGSM's point, then a random one and those of PGD from there, each with the model's pass with a gradient."""
    ball = threat.ball
    fgsm_point = threat.project(x + ball.furthest(clean_gradients, x), x)
    yield fgsm_point, _pass(model, fgsm_point, y)
    at = threat.project(x + ball.sample(x, rng.fold("start")), x)
    for _ in range(PATH_POINTS):
        passes = _pass(model, at, y)
        yield at, passes
        at = threat.project(at + ball.scaled(PATH_STEP).furthest(passes.gradient.nan_to_num(), at), x)


def _pass(model: Model, x: Tensor, y: Tensor) -> InputGradient:
    """A pass with a gradient, which is zero if autograd does not reach the input from here."""
    seed_everything(0)
    passes = gradient_passes(model, x, y, margin)
    if passes is not None:
        return passes
    logits = seeded_scores(model, x, 0)
    return InputGradient(torch.zeros_like(x), margin(logits, y), logits)
