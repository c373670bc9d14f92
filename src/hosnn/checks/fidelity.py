"""Fidelity of a gradient: does a step along it raise the margin more than a random step of the same size?

Shapes: x [n, ...] in [0, 1], y [n], gradients [n, ...].
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hosnn.checks.measurements import seeded_scores
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Model
from hosnn.robustness.threats import Threat

RADII = (0.25, 1.0, 4.0)
"""Step sizes over eps that fidelity is measured at: spikes jump, so a small step may change nothing."""


FEWEST_TRIALS = 20
"""Fewest trials for a fidelity to be given."""


class Trials(NamedTuple):
    """Comparisons of a step along the gradient with random ones, [trials, n]."""

    wins: Tensor
    """1 where the gradient's step raises the margin more than the random one, 1/2 where both raise it equally."""
    changed: Tensor
    """Whether either step changes the margin at all."""


class Fidelity(NamedTuple):
    """Share of the trials that the gradient wins, and the size of the steps, in pixel units."""

    share: float
    eps: float


def run_trials(
    model: Model, x: Tensor, y: Tensor, gradients: Tensor, threat: Threat, rng: SampleRandom, count: int
) -> dict[float, Trials]:
    """`count` random directions per image, each compared with the gradient's, at every step size, in pixel units.

    Sizes beyond the range of a pixel are left out; without a budget there are none.
    """
    start = margin(seeded_scores(model, x, 0), y)
    directions = [gradients, *(rng.fold("direction", trial).normal(x) for trial in range(count))]
    trials = {}
    for radius in RADII:
        if not 0 < threat.ball.eps * radius <= threat.ball.whole_range:
            continue
        within = threat.scaled(radius)
        moved = [within.project(x + within.ball.furthest(direction, x), x) for direction in directions]
        along_gradient, *at_random = (margin(seeded_scores(model, images, 0), y) - start for images in moved)
        rises = torch.stack(at_random)
        wins = (along_gradient > rises).float() + 0.5 * (along_gradient == rises).float()
        trials[within.ball.eps] = Trials(wins, (rises != 0) | (along_gradient != 0))
    return trials


def best_fidelity(wins_by_size: dict[float, Tensor]) -> Fidelity | None:
    """The highest share of wins among step sizes with enough trials; None if there is none."""
    found = [Fidelity(float(wins.mean()), size) for size, wins in wins_by_size.items() if len(wins) >= FEWEST_TRIALS]
    return max(found, default=None, key=lambda fidelity: fidelity.share)
