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
from hosnn.robustness.losses import Aimed
from hosnn.robustness.model import Model, input_gradient, scores, subset, without_state
from hosnn.robustness.threats import L1, L2, Linf, Threat, per_sample

FAR = 1e3
"""Without a pixel domain: the most that a pixel moves in one step, and the largest |target score - label score|."""


class Closest(NamedTuple):
    """The nearest adversarial point of each sample."""

    x_adv: Tensor  # [B, ...]; x itself where there is none
    distance: Tensor  # [B] in the ball's norm; inf where there is none


@identified("FAB")
@dataclass(frozen=True)
class FAB:
    """Follow the boundary between the label and a target class: step a little beyond the linearised boundary, biased
    towards its point nearest to x, and after a success move part of the way back to x.

        x' <- (1 - a) (x' + overshoot · d(x')) + a (x + overshoot · d(x)),   a = min(|d(x')| / (|d(x')| + |d(x)|), bias)

    where d(z) is the smallest move within the domain from z to where the two scores, linearised at x', are equal.
    targets   the most likely wrong classes on x, tried in turn; fewer if there are fewer classes
    restarts  runs for each target; all but the first start at a random point within eps / 2
    bias      the largest weight a of the step from x; 0 ignores x
    overshoot how far beyond the boundary a step goes: 1 stops on it
    backward  after a success, the share of the distance from x that is kept
    As an attack it returns an adversarial point inside the threat, with which the sample is done, else x.
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
        eps = self.threat.ball.eps
        closest = self._all_runs(model, x, y, rng, stop_at=eps)
        return torch.where(per_sample(closest.distance <= eps, x), closest.x_adv, x)

    def closest(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Closest:
        """The nearest adversarial point of all targets and restarts, inside the ball or not."""
        return self._all_runs(model, x, y, rng, stop_at=0.0)

    def _all_runs(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, stop_at: float) -> Closest:
        """All targets and restarts; a sample is done once an adversarial point lies within the distance `stop_at`."""
        ranked, wrong = _wrong_classes(scores(model, x), y)
        best, distance = x.clone(), torch.full(y.shape, torch.inf, dtype=_precise(x), device=x.device)
        distance[wrong] = 0.0
        for rank in range(min(self.targets, ranked.shape[1])):
            for restart in range(self.restarts):
                robust = (distance > stop_at).nonzero()[:, 0]
                if not len(robust):
                    break
                start = x[robust]
                model = without_state(model) if rank or restart else model
                if restart:
                    half, stream = self.threat.scaled(0.5), rng.subset(robust).fold("fab", rank, restart)
                    start = half.project(start + half.ball.sample(start, stream), start)
                target = ranked[robust, rank]
                closest = self._run(subset(model, robust), x[robust], y[robust], target, start, stop_at)
                closer = closest.distance < distance[robust]
                best[robust[closer]], distance[robust[closer]] = closest.x_adv[closer], closest.distance[closer]
        return Closest(best, distance)

    def _run(self, model: Model, x: Tensor, y: Tensor, target: Tensor, start: Tensor, stop_at: float) -> Closest:
        """One run from `start`, every sample towards its own target [B]."""
        best, distance = x.clone(), torch.full(y.shape, torch.inf, dtype=_precise(x), device=x.device)
        robust, robust_model = torch.arange(len(y), device=y.device), model
        point, centre = start, x
        for _ in range(self.steps):
            lead = input_gradient(robust_model, point, y[robust], Aimed(_lead, target[robust]))
            point = self._step(point, centre, lead.loss, lead.gradient)
            wrong = scores(robust_model, point).argmax(1) != y[robust]
            length = torch.where(wrong, self.threat.ball.size(point - centre).to(distance), torch.inf)
            closer = length < distance[robust]
            best[robust[closer]], distance[robust[closer]] = point[closer], length[closer]
            point = torch.where(per_sample(wrong, point), centre + self.backward * (point - centre), point)
            done = length <= stop_at
            if done.any():
                robust, point, centre = robust[~done], point[~done], centre[~done]
                robust_model = subset(model, robust)
            if not len(robust):
                break
        return Closest(best, distance)

    def _step(self, point: Tensor, centre: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
        """x' after one step; `lead` [B] is the target's score minus the label's at x', `gradient` its gradient."""
        threat = self.threat
        # Half precision cannot sum over an image.  The slope's scale cancels; a tiny one would underflow when squared.
        precise = _precise(point)
        slope = gradient.to(precise).nan_to_num()
        largest = per_sample(slope.flatten(1).abs().amax(1), slope)
        largest = torch.where(largest > 0, largest, 1)
        slope, lead = slope / largest, (lead.to(precise) / largest.view(-1)).nan_to_num(posinf=FAR, neginf=-FAR)
        from_point = to_hyperplane(threat, point.to(precise), slope, lead)
        from_centre = to_hyperplane(
            threat, centre.to(precise), slope, lead + (slope * (centre - point)).flatten(1).sum(1)
        )
        near, far = (threat.ball.size(move).clamp(min=1e-8) for move in (from_point, from_centre))
        share = per_sample((near / (near + far)).clamp(max=self.bias), point)
        moved = (1 - share) * (point + self.overshoot * from_point) + share * (centre + self.overshoot * from_centre)
        moved = moved.to(point.dtype)
        return moved if threat.domain is None else moved.clamp(*threat.domain)


def to_hyperplane(threat: Threat, z: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """The smallest move d in the ball's norm with  height + slope · d = 0  and z + d in the domain.

    z, slope  [B, ...];  height [B];  returns d [B, ...].  If the plane lies outside the domain: as close as possible.
    Pixel i moves by min(level · rate_i, room_i), with rate 1 for linf and |slope_i| for l2, and the level is
    searched among the sorted room_i / rate_i; for l1 pixels move as far as they can in the order of |slope_i|.
    """
    w, c = slope.flatten(1), height.abs()
    direction = -w.sign() * height.sign()[:, None]
    weight = w.abs()
    room = torch.full_like(w, FAR)
    if threat.domain is not None:
        low, high = threat.domain
        room = torch.where(direction > 0, high - z.flatten(1), z.flatten(1) - low).clamp(min=0)
    if isinstance(threat.ball, L1):
        order = weight.argsort(1, descending=True)
        gain = (weight * room).gather(1, order)
        before = gain.cumsum(1) - gain
        used = ((c[:, None] - before) / weight.gather(1, order).clamp(min=1e-30)).clamp(min=0)
        moved = torch.zeros_like(w).scatter(1, order, used.minimum(room.gather(1, order)))
    else:
        rate = torch.ones_like(w) if isinstance(threat.ball, Linf) else weight
        # Pixels without slope have no effect: they sort last and do not move.
        limit = torch.where(weight > 0, room / rate.clamp(min=1e-30), torch.inf)
        limit, order = limit.sort(1)
        used = torch.where(weight > 0, weight * room, 0).gather(1, order).cumsum(1)
        full = (weight * rate).gather(1, order)
        left = full.flip(1).cumsum(1).flip(1)  # growth per unit of level, pixels 0..i-1 being at their limits
        reached = torch.nn.functional.pad(used[:, :-1], (1, 0))
        # The level at which the plane is reached with pixels 0..i-1 at their limits; the first below limit_i is right.
        level = (c[:, None] - reached) / left.clamp(min=1e-30)
        first = (level <= limit).to(torch.uint8).argmax(1, keepdim=True)
        met = (level <= limit).any(1, keepdim=True) & (left.gather(1, first) > 0)
        level = torch.where(met, level.gather(1, first).clamp(min=0), torch.inf)
        moved = (level * rate).minimum(room)
    return torch.where(weight > 0, direction * moved, 0).view_as(z)


def _wrong_classes(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Wrong classes [B, K - 1], most likely first, and whether the model is wrong already [B]."""
    others = logits.nan_to_num().scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :-1], logits.argmax(1) != y


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The target's score minus the label's; the boundary is at 0."""
    chosen = logits.gather(1, torch.stack((target, y), 1))
    return chosen[:, 0] - chosen[:, 1]
