"""The targeted fast adaptive boundary attack (FAB-T): adversarial points of least norm.

Croce & Hein 2020 (arXiv:1907.02044), with the settings of AutoAttack (arXiv:2003.01690).
Shapes: inputs [B, ...], labels [B], scores [B, K]; inside the projection, samples are flat [B, N].
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Linf, per_sample
from hosnn.robustness.grid import through_grid
from hosnn.robustness.losses import WithTarget, misclassified, tied
from hosnn.robustness.model import Model, input_gradient, scores, subset, without_state
from hosnn.robustness.threats import Threat

FAR = 1e3
"""Without a pixel domain: the most that a pixel moves in one step, and the largest |target score - label score|."""


class Closest(NamedTuple):
    """The nearest adversarial point of each sample."""

    x_adv: Tensor  # [B, ...]; x itself where there is none
    distance: Tensor  # [B] in the ball's norm; inf where there is none


class _Found(NamedTuple):
    """The nearest points of a search: misclassified ones, and those where the label only shares the largest score."""

    wrong: Closest
    tied: Closest

    @classmethod
    def nothing(cls, x: Tensor, y: Tensor) -> "_Found":
        distance = torch.full(y.shape, torch.inf, dtype=_at_least_float32(x), device=x.device)
        return cls(Closest(x.clone(), distance), Closest(x.clone(), distance.clone()))

    def update(self, new: "_Found", rows: Tensor) -> None:
        """Keep what is nearer of the samples in `rows`, in place."""
        for kept, found in zip(self, new, strict=True):
            closer = found.distance < kept.distance[rows]
            kept.x_adv[rows[closer]], kept.distance[rows[closer]] = found.x_adv[closer], found.distance[closer]


@identified("FAB")
@dataclass(frozen=True)
class FAB:
    """Follow the boundary between the label and a target class: step a little beyond the linearised boundary, biased
    towards its point nearest to x, and after a success move part of the way back to x.

        x' <- (1 - a) (x' + overshoot · d(x')) + a (x + overshoot · d(x)),   a = min(|d(x')| / (|d(x')| + |d(x)|), bias)

    where d(z) is the smallest move within the domain from z to where the two scores, linearised at x', are equal.
    targets   the most likely wrong classes on x, tried in turn; fewer if there are fewer classes
    restarts  runs for each target; all but the first start at a random point within eps / 2
    bias      alpha_max of the paper: the largest weight a of the step from x; 0 ignores x
    overshoot eta: how far beyond the boundary a step goes; 1 stops on it
    backward  beta: after a success, the share of the distance from x that is kept
    As an attack it returns the first adversarial point inside the threat, else the nearest one there at which the label
    shares the largest score with another class, else x.
    Raises ConfigError for a ball that is not linf, l2 or l1, and for settings out of range.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    threat: Threat
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    bias: float = 0.1
    overshoot: float = 1.05
    backward: float = 0.9

    def __post_init__(self) -> None:
        if not isinstance(self.threat.ball, (Linf, L2, L1)):
            raise ConfigError(
                f"FAB got the threat {self.threat}; it supports linf, l2 and l1 only; use PGD for other balls"
            )
        if min(self.steps, self.targets, self.restarts) < 1:
            raise ConfigError(
                f"FAB got steps = {self.steps}, targets = {self.targets}, restarts = {self.restarts}; "
                "expected at least 1 of each"
            )
        if not (0 <= self.bias <= 1 and self.overshoot >= 1 and 0 < self.backward <= 1):
            raise ConfigError(
                f"FAB got bias = {self.bias}, overshoot = {self.overshoot}, backward = {self.backward}; "
                "expected 0 <= bias <= 1, overshoot >= 1 and 0 < backward <= 1"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        # The difference of two points of the grid is a multiple of its step up to the last bit only.
        eps = self.threat.ball.eps + (0.0 if self.threat.bits is None else 1e-6)
        found = self._search(model, x, y, rng, stop_at=eps)
        for points in reversed(found):
            x = torch.where(per_sample(points.distance <= eps, x), points.x_adv, x)
        return x

    def closest(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Closest:
        """The nearest adversarial point of all targets and restarts, inside the ball or not."""
        return self._search(model, x, y, rng, stop_at=0.0).wrong

    def _search(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, stop_at: float) -> _Found:
        """All targets and restarts; a sample is done once an adversarial point lies within the distance `stop_at`."""
        model = through_grid(model, self.threat, x)
        ranked, wrong = _wrong_classes(scores(model, x), y)
        best = _Found.nothing(x, y)
        best.wrong.distance[wrong] = 0.0
        for rank in range(min(self.targets, ranked.shape[1])):
            for restart in range(self.restarts):
                robust = (best.wrong.distance > stop_at).nonzero()[:, 0]
                if not len(robust):
                    break
                start = x[robust]
                model = without_state(model) if rank or restart else model
                if restart:
                    half, stream = self.threat.relaxed.scaled(0.5), rng.subset(robust).fold("fab", rank, restart)
                    start = half.project(start + half.ball.sample(start, stream), start)
                target = ranked[robust, rank]
                best.update(self._run(subset(model, robust), x[robust], y[robust], target, start, stop_at), robust)
        return best

    def _run(self, model: Model, x: Tensor, y: Tensor, target: Tensor, start: Tensor, stop_at: float) -> _Found:
        """One run from `start`, every sample towards its own target [B]."""
        best = _Found.nothing(x, y)
        robust, robust_model = torch.arange(len(y), device=y.device), model
        point, clean = start, x
        for _ in range(self.steps):
            evaluated = input_gradient(robust_model, point, y[robust], WithTarget(_score_difference, target[robust]))
            point = self._step(point, clean, evaluated.loss, evaluated.gradient)
            reached = scores(robust_model, point)
            wrong, tie = misclassified(reached, y[robust]), tied(reached, y[robust])
            seen = self.threat.rounded(point, clean)
            length = self.threat.ball.size(seen - clean).to(best.wrong.distance)
            lengths = (torch.where(which, length, torch.inf) for which in (wrong, tie))
            best.update(_Found(*(Closest(seen, distance) for distance in lengths)), robust)
            point = torch.where(per_sample(wrong, point), clean + self.backward * (point - clean), point)
            done = wrong & (length <= stop_at)
            if done.any():
                robust, point, clean = robust[~done], point[~done], clean[~done]
                robust_model = subset(model, robust)
            if not len(robust):
                break
        return best

    def _step(self, point: Tensor, clean: Tensor, difference: Tensor, gradient: Tensor) -> Tensor:
        """x' after one step from `point`, given the target's score minus the label's there [B] and its gradient."""
        threat = self.threat
        # Half precision cannot sum over an image.  The slope's scale cancels; a tiny one would underflow when squared.
        precise = _at_least_float32(point)
        slope = gradient.to(precise).nan_to_num()
        largest = per_sample(slope.flatten(1).abs().amax(1), slope)
        largest = torch.where(largest > 0, largest, 1)
        slope = slope / largest
        height = (difference.to(precise) / largest.view(-1)).nan_to_num(posinf=FAR, neginf=-FAR)
        from_point = to_hyperplane(threat, point.to(precise), slope, height)
        from_clean = to_hyperplane(
            threat, clean.to(precise), slope, height + (slope * (clean - point)).flatten(1).sum(1)
        )
        near, far = (threat.ball.size(move).clamp(min=1e-8) for move in (from_point, from_clean))
        weight = per_sample((near / (near + far)).clamp(max=self.bias), point)
        moved = (1 - weight) * (point + self.overshoot * from_point) + weight * (clean + self.overshoot * from_clean)
        moved = moved.to(point.dtype)
        return moved if threat.domain is None else moved.clamp(*threat.domain)


def to_hyperplane(threat: Threat, z: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """The smallest move d in the ball's norm with  height + slope · d = 0  and z + d in the domain.

    z, slope  [B, ...];  height [B];  returns d [B, ...].  If the plane lies outside the domain: as close as possible.
    Pixel i moves by min(level · rate_i, room_i), with rate 1 for linf and |slope_i| for l2, and the level is
    searched among the sorted room_i / rate_i; for l1 pixels move as far as they can in the order of |slope_i|.
    """
    flat, distance = slope.flatten(1), height.abs()
    direction = -flat.sign() * height.sign()[:, None]
    weight = flat.abs()
    room = torch.full_like(flat, FAR)
    if threat.domain is not None:
        low, high = threat.domain
        room = torch.where(direction > 0, high - z.flatten(1), z.flatten(1) - low).clamp(min=0)
    if isinstance(threat.ball, L1):
        order = weight.argsort(1, descending=True)
        gain = (weight * room).gather(1, order)
        before = gain.cumsum(1) - gain
        moves = ((distance[:, None] - before) / weight.gather(1, order).clamp(min=1e-30)).clamp(min=0)
        moved = torch.zeros_like(flat).scatter(1, order, moves.minimum(room.gather(1, order)))
    else:
        rate = torch.ones_like(flat) if isinstance(threat.ball, Linf) else weight
        # Pixels without slope have no effect: they sort last and do not move.
        limit = torch.where(weight > 0, room / rate.clamp(min=1e-30), torch.inf)
        limit, order = limit.sort(1)
        gain_at_limits = torch.where(weight > 0, weight * room, 0).gather(1, order).cumsum(1)
        gain = (weight * rate).gather(1, order)
        gain_per_level = gain.flip(1).cumsum(1).flip(1)  # with pixels 0..i-1 at their limits
        reached = torch.nn.functional.pad(gain_at_limits[:, :-1], (1, 0))
        # The level at which the plane is reached with pixels 0..i-1 at their limits; the first below limit_i is right.
        level = (distance[:, None] - reached) / gain_per_level.clamp(min=1e-30)
        first = (level <= limit).to(torch.uint8).argmax(1, keepdim=True)
        reachable = (level <= limit).any(1, keepdim=True) & (gain_per_level.gather(1, first) > 0)
        level = torch.where(reachable, level.gather(1, first).clamp(min=0), torch.inf)
        moved = (level * rate).minimum(room)
    return torch.where(weight > 0, direction * moved, 0).view_as(z)


def _wrong_classes(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Wrong classes [B, K - 1], most likely first, and whether the model is wrong already [B]."""
    others = logits.nan_to_num().scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :-1], misclassified(logits, y)


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _score_difference(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The target's score minus the label's; the boundary is at 0."""
    pair = logits.gather(1, torch.stack((target, y), 1))
    return pair[:, 0] - pair[:, 1]
