"""Stable adaptive PGD that spends most of its passes on the samples nearest the boundary.

Shapes: x [B, ...], y [B].
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT, identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Ball, Linf, per_sample
from hosnn.robustness.losses import Loss, margin
from hosnn.robustness.model import Model, subset, without_state
from hosnn.robustness.pgd import Start, on_sphere
from hosnn.robustness.sapgd import adaptive_moment_step
from hosnn.robustness.scheduled_ascent import BestPoints, Schedule, ScheduledAscent
from hosnn.robustness.threats import Threat


@identified("smooth_signs")
def smooth_signs(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
    """Start at a random perturbation of low frequency: eps times the signs of normal noise at a quarter of the
    resolution, enlarged; of vectors [B, N], of noise."""
    if x.dim() < 3:
        return ball.project(ball.eps * rng.sign(x))
    return ball.project(ball.eps * _smooth_noise(x, rng).sign())


def _smooth_noise(x: Tensor, rng: SampleRandom) -> Tensor:
    """Normal noise of a quarter of the resolution, enlarged to the shape of x; of vectors [B, N], plain noise."""
    if x.dim() < 3:
        return rng.normal(x)
    height, width = x.shape[-2:]
    coarse = x.new_empty(len(x), math.prod(x.shape[1:-2]), math.ceil(height / 4), math.ceil(width / 4))
    enlarged = torch.nn.functional.interpolate(rng.normal(coarse), size=(height, width), mode="bilinear")
    return enlarged.view_as(x)


@identified("FromBest")
@dataclass(frozen=True)
class FromBest:
    """Start at the best point so far, whose perturbation gives way to `smooth_signs` in a random smooth region.

    share      of the numbers of an image in that region
    step_size  the first step, as a share of eps
    Started at the point itself, two runs would make the same steps; so each has another region.
    """

    share: float = 0.3
    step_size: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 < self.step_size < math.inf:
            raise ConfigError(
                f"FromBest got share = {self.share} and step_size = {self.step_size}; expected a share between 0 and 1 "
                "and a positive step"
            )

    def at(self, points: Tensor) -> Start:
        """The start, given the best points [b, ...]."""

        def start(ball: Ball, x: Tensor, rng: SampleRandom) -> Tensor:
            noise = _smooth_noise(x, rng.fold("region"))
            limit = per_sample(noise.flatten(1).quantile(1 - self.share, dim=1), noise)
            return torch.where(noise > limit, smooth_signs(ball, x, rng.fold("signs")), points - x)

        return start


@identified("FocusedSAPGD")
@dataclass(frozen=True)
class FocusedSAPGD:
    """SA-PGD on all samples, then again and again on those of largest loss among the samples that still withstand.

    steps        of the first run, on every sample
    near_steps   of each further run
    share        of the samples that withstand the first run, rounded up, which each further run attacks
    past_ties    further runs attack samples whose label is tied like others; False: they leave them out, for where ties
                 count as lost
    starts       where the further runs start; None: the best point so far itself, first step a quarter of eps
    copies       of each of these samples that a further run attacks at once, each with random numbers of its own: where
                 few samples are near, that is several times faster than as many runs one after the other
    Linf only, as SA-PGD.  Which samples are nearest depends on the batch, so results do too.
    Returns per sample the first adversarial point reached, else the point of largest loss.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    threat: Threat
    steps: int = 60
    near_steps: int = 200
    share: float = 0.25
    starts: tuple[Start | FromBest | None, ...] = (smooth_signs, None, on_sphere, None)
    loss: Loss = margin
    past_ties: bool = field(default=True, metadata=OMITTED_AT_DEFAULT)
    copies: int = field(default=1, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.near_steps < 1 or not 0 < self.share <= 1 or self.copies < 1:
            raise ConfigError(
                f"FocusedSAPGD got steps = {self.steps}, near_steps = {self.near_steps}, share = {self.share}, "
                f"copies = {self.copies}; expected at least 1 step, a share in (0, 1], and at least 1 copy"
            )
        if not isinstance(self.threat.ball, Linf):
            raise ConfigError(f"FocusedSAPGD got the threat {self.threat}; it supports linf only; use APGD for l2")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        *_, best = self.runs(model, x, y, rng)
        return best.x_adv

    def runs(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Iterator[BestPoints]:
        """The best points after the first run and after each further one, always the same tensors, updated."""
        best = self._run(model, x, y, rng, on_sphere, self.steps)
        yield best
        count = math.ceil(self.share * int(self._withstanding(best).sum()))
        for number, start in enumerate(self.starts):
            robust = self._withstanding(best).nonzero()[:, 0]
            nearest = robust[best.loss[robust].argsort(descending=True, stable=True)[:count]].sort().values
            if not len(nearest):
                break
            rows = nearest.repeat(self.copies)
            run_start, step_size = _begun(start, best.x_adv[rows])
            found = self._run(
                subset(without_state(model), rows),
                x[rows],
                y[rows],
                rng.subset(nearest).fold("nearest", number).copies(self.copies),
                run_start,
                self.near_steps,
                step_size,
            )
            for copy in range(self.copies):
                of_copy = slice(copy * len(nearest), (copy + 1) * len(nearest))
                best.update(BestPoints(*(values[of_copy] for values in found)), nearest)
            yield best

    def _withstanding(self, best: BestPoints) -> Tensor:
        return ~best.fooled if self.past_ties else ~best.fooled & ~best.tied

    def _run(
        self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, start: Start, steps: int, step_size: float = 1.0
    ) -> BestPoints:
        schedule = Schedule(steps, rho=float("inf"), from_best=False)
        ascent = ScheduledAscent(self.threat, start, adaptive_moment_step, step_size, schedule)
        return ascent(model, x, y, rng, lambda chosen: self.loss)


def _begun(start: Start | FromBest | None, best: Tensor) -> tuple[Start, float]:
    """Where a run starts, given the best points so far [b, ...], and its first step as a share of eps."""
    if isinstance(start, FromBest):
        return start.at(best), start.step_size
    return (start, 1.0) if start else (lambda ball, x, rng: best - x, 0.25)
