"""An attack that uses only the predicted class (HopSkipJump: Chen, Jordan & Wainwright 2020, arXiv:1904.02144).

Shapes: inputs [B, ...], labels [B], scores [B, K], of which only the position of the largest is used.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Linf, per_sample
from hosnn.robustness.grid import through_grid
from hosnn.robustness.losses import misclassified
from hosnn.robustness.model import Model, scores, subset
from hosnn.robustness.threats import Threat

MAX_HALVINGS = 24
"""Of a step or of an interval: the bits of a float32."""


@identified("HopSkipJump")
@dataclass(frozen=True)
class HopSkipJump:
    """Follow the decision boundary towards x: estimate the boundary's normal from the classes of random points nearby,
    step along it, return to the boundary by bisection between the new point and x.

    threat   Linf or L2: the norm in which the distance to x is made smaller
    queries  at most this many model queries per sample
    probes   random points for the first estimate of the normal; iteration t takes probes · sqrt(t)
    starts   at most this many random images, fine and coarse, are tried as starting point; the first adversarial one is
             used
    Returns, with p the closest adversarial point found: if p lies inside the ball, p moved away from x to the ball's
    surface where the model is still wrong there, else p; if p lies outside, its projection; x if no start was
    adversarial.
    Raises ConfigError for other balls.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    threat: Threat
    queries: int = 5000
    probes: int = 100
    starts: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.threat.ball, (Linf, L2)):
            raise ConfigError(
                f"HopSkipJump got the threat {self.threat}; it supports linf and l2 only; use PGD or FAB for l1"
            )
        if min(self.queries, self.probes, self.starts) < 1:
            raise ConfigError(
                f"HopSkipJump got queries = {self.queries}, probes = {self.probes}, starts = {self.starts}; "
                "expected at least 1 of each"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        oracle, ball = _Oracle(through_grid(model, self.threat, x), y, self.queries), self.threat.ball
        closest = self._search(oracle, x, rng, stop_at=ball.eps)
        point, distance = self.threat.project(closest, x), ball.size(closest - x)
        inside = (distance > 0) & (distance < ball.eps)
        stretch = torch.where(inside, ball.eps / distance.clamp(min=torch.finfo(x.dtype).tiny), 1)
        stretched = self.threat.project(x + per_sample(stretch, x) * (point - x), x)
        return torch.where(per_sample(oracle.fooled(stretched, inside), x), stretched, point)

    def closest(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        """The nearest adversarial point, inside the ball or not; x itself where there is none.  [B, ...]"""
        oracle = _Oracle(through_grid(model, self.threat, x), y, self.queries)
        return self.threat.rounded(self._search(oracle, x, rng, stop_at=0.0), x)

    def _search(self, oracle: "_Oracle", x: Tensor, rng: SampleRandom, stop_at: float) -> Tensor:
        """The nearest adversarial points; a sample stops at a distance of `stop_at`."""
        ball = self.threat.ball
        point, active = self._start(oracle, x, rng)
        point = self._approach(oracle, x, point, active)
        best = point
        for iteration in range(1, self.queries):
            distance = ball.size(point - x)
            probes = int(self.probes * math.sqrt(iteration))
            # A sample stops when its queries may not suffice for an iteration, whatever the rest of the batch does.
            active = active & (ball.size(best - x) > stop_at)
            active &= oracle.queries_left >= probes + MAX_HALVINGS + self._precision(x)
            if not active.any():
                break
            # A tenth of the pixel range at first, then as short as the precision of the bisection allows.
            length = torch.full_like(distance, 0.1) if iteration == 1 else self._probe_length(distance, x)
            normal = self._normal(oracle, x, point, length, probes, active, rng.fold("probes", iteration))
            step_size, pending, after_step = distance / math.sqrt(iteration), active, point
            for _ in range(MAX_HALVINGS):
                if not pending.any():
                    break
                candidate = self._in_domain(point + per_sample(step_size, x) * normal)
                fooled = oracle.fooled(candidate, pending)
                after_step = torch.where(per_sample(fooled, x), candidate, after_step)
                pending, step_size = pending & ~fooled, step_size / 2
            point = self._approach(oracle, x, after_step, active)
            closer = ball.size(point - x) < ball.size(best - x)
            best = torch.where(per_sample(closer, x), point, best)
        return best

    def _start(self, oracle: "_Oracle", x: Tensor, rng: SampleRandom) -> tuple[Tensor, Tensor]:
        """A first adversarial point, else x  [B, ...]; and whether one other than x was found  [B]."""
        point = x
        searching = ~oracle.fooled(x, torch.ones_like(oracle.y, dtype=torch.bool))
        started = torch.zeros_like(searching)
        for attempt in range(min(self.starts, oracle.queries - 1)):
            if not searching.any():
                break
            candidate = self._random_image(x, attempt, rng.fold("start", attempt))
            fooled = oracle.fooled(candidate, searching)
            point = torch.where(per_sample(fooled, x), candidate, point)
            started, searching = started | fooled, searching & ~fooled
        return point, started

    def _random_image(self, x: Tensor, attempt: int, rng: SampleRandom) -> Tensor:
        """Uniform in the domain (without one: in x's neighbourhood), in patches of 1, 2, 4, ... pixels; every second
        image in its two extreme colours only.  Most models put all fine noise in one class, so starts must differ."""
        noise = rng.uniform(x)
        patch = 2 ** (attempt // 2 % 5)
        for axis in range(max(x.dim() - 2, 1), x.dim()):
            coarse = torch.arange(x.shape[axis], device=x.device) // patch * patch
            noise = noise.index_select(axis, coarse)
        if attempt % 2:
            noise = noise.round()
        if self.threat.domain is None:
            return x + 2 * noise - 1
        low, high = self.threat.domain
        return low + (high - low) * noise

    def _in_domain(self, point: Tensor) -> Tensor:
        return point if self.threat.domain is None else point.clamp(*self.threat.domain)

    def _precision(self, x: Tensor) -> int:
        """Halvings of a bisection until its interval is as short as the paper asks: d^-3/2 in l2, d^-2 in linf."""
        power = 2.0 if isinstance(self.threat.ball, Linf) else 1.5
        return min(math.ceil(power * math.log2(max(math.prod(x.shape[1:]), 2))), MAX_HALVINGS)

    def _probe_length(self, distance: Tensor, x: Tensor) -> Tensor:
        """The length of a probe: distance / d, or longer where its pixels, 1 / sqrt(d) of it, would be rounded away."""
        size, levels = math.prod(x.shape[1:]), 2 ** (self.threat.bits or 64)
        return (distance / size).clamp(min=max(16 * torch.finfo(x.dtype).eps, 1 / levels) * math.sqrt(size))

    def _approach(self, oracle: "_Oracle", x: Tensor, point: Tensor, active: Tensor) -> Tensor:
        """Bisection between x and the adversarial `point`: the adversarial point next to the boundary."""
        ball, delta = self.threat.ball, point - x
        low, high = torch.zeros_like(active, dtype=x.dtype), torch.ones_like(active, dtype=x.dtype)
        largest, nearest = per_sample(ball.size(delta), x), point
        for _ in range(self._precision(x)):
            middle = (low + high) / 2
            share = per_sample(middle, x)
            linf = isinstance(ball, Linf)
            candidate = x + (delta.clamp(-share * largest, share * largest) if linf else share * delta)
            fooled = oracle.fooled(candidate, active)
            high, low = torch.where(fooled, middle, high), torch.where(fooled, low, middle)
            nearest = torch.where(per_sample(fooled, x), candidate, nearest)
        return nearest

    def _normal(
        self,
        oracle: "_Oracle",
        x: Tensor,
        point: Tensor,
        length: Tensor,
        probes: int,
        active: Tensor,
        rng: SampleRandom,
    ) -> Tensor:
        """The unit step, steepest in the ball's norm, from `point` towards adversarial points.  [B, ...]

        mean over probes u of (phi(u) - mean phi) u, phi = 1 where point + length · u is adversarial, else -1; mean phi
        is not subtracted where all probes agree.
        """
        signed_sum, sum_of_steps, sum_of_signs = (
            torch.zeros_like(point),
            torch.zeros_like(point),
            torch.zeros_like(length),
        )
        scale = per_sample(length.clamp(min=torch.finfo(x.dtype).tiny), x)
        for probe in range(probes):
            stream = rng.fold(probe)
            noise = 2 * stream.uniform(x) - 1 if isinstance(self.threat.ball, Linf) else stream.normal(x)
            noise = noise / per_sample(L2(0).size(noise), x)
            probed = self._in_domain(point + scale * noise)
            sign = oracle.fooled(probed, active).to(x.dtype) * 2 - 1
            step = (probed - point) / scale
            signed_sum = signed_sum + per_sample(sign, x) * step
            sum_of_steps, sum_of_signs = sum_of_steps + step, sum_of_signs + sign
        mean = sum_of_signs / probes
        mean = torch.where(mean.abs() == 1, 0, mean)
        return self.threat.ball.steepest((signed_sum - per_sample(mean, x) * sum_of_steps).nan_to_num())


@dataclass
class _Oracle:
    """The model reduced to right or wrong, with a count of the queries left for each sample."""

    model: Model
    y: Tensor
    queries: int
    queries_left: Tensor = field(init=False)  # [B]

    def __post_init__(self) -> None:
        self.queries_left = torch.full_like(self.y, self.queries)

    def fooled(self, points: Tensor, active: Tensor) -> Tensor:
        """Whether the model is wrong on each point; False for samples not `active` [B] or without queries left."""
        queried = (active & (self.queries_left > 0)).nonzero()[:, 0]
        wrong = torch.zeros_like(self.y, dtype=torch.bool)
        if len(queried):
            self.queries_left[queried] -= 1
            wrong[queried] = misclassified(scores(subset(self.model, queried), points[queried]), self.y[queried])
        return wrong
