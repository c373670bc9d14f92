"""An attack that sees nothing but the predicted class (HopSkipJump: Chen, Jordan & Wainwright 2020, arXiv:1904.02144).

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
from hosnn.robustness.model import Model, rows, scores
from hosnn.robustness.threats import L2, Linf, Threat, per_sample

HALVINGS = 24
"""A step or an interval is halved at most this often: what a float32 can tell apart."""


@identified("HopSkipJump")
@dataclass(frozen=True)
class HopSkipJump:
    """Walk along the decision boundary towards x: estimate the boundary's normal from the classes of random points
    nearby, step along it, search back to the boundary on the way to x.

    threat   Linf or L2: the norm in which the walk comes closer
    queries  images shown to the model per sample, at most; a sample within the ball is shown one more
    probes   random points of the first estimate; the estimate of iteration t takes probes · sqrt(t)
    starts   random images, fine and coarse, of which the first adversarial one begins the walk
    Returns an adversarial point of the ball's surface where the closest one lies inside and the model errs on it
    stretched to the surface too (there it does not hug the boundary), the closest one where it does not; where that
    lies outside, its projection; x if no start was adversarial.
    Raises ConfigError for other balls.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    threat: Threat
    queries: int = 5000
    probes: int = 100
    starts: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.threat.ball, (Linf, L2)):
            raise ConfigError(f"HopSkipJump got the threat {self.threat}; it walks in linf and l2 only")
        if min(self.queries, self.probes, self.starts) < 1:
            raise ConfigError(
                f"HopSkipJump got queries = {self.queries}, probes = {self.probes}, starts = {self.starts}; "
                "expected at least 1 of each"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        oracle, ball = _Oracle(model, y, self.queries), self.threat.ball
        closest = self._walk(oracle, x, rng, enough=ball.eps)
        point, distance = self.threat.project(closest, x), ball.size(closest - x)
        inside = (distance > 0) & (distance < ball.eps)
        stretch = torch.where(inside, ball.eps / distance.clamp(min=torch.finfo(x.dtype).tiny), 1)
        stretched = self.threat.project(x + per_sample(stretch, x) * (point - x), x)
        return torch.where(per_sample(oracle.fooled(stretched, inside), x), stretched, point)

    def closest(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        """The nearest adversarial point found, inside the ball or not; x itself where none was found.  [B, ...]"""
        return self._walk(_Oracle(model, y, self.queries), x, rng, enough=0.0)

    def _walk(self, oracle: "_Oracle", x: Tensor, rng: SampleRandom, enough: float) -> Tensor:
        ball = self.threat.ball
        point, going = self._start(oracle, x, rng)
        point = self._approach(oracle, x, point, going)
        best = point
        for iteration in range(1, self.queries):
            distance = ball.size(point - x)
            probes = int(self.probes * math.sqrt(iteration))
            # Whoever cannot pay for an iteration's worst case stops, so that neighbours do not matter.
            going = going & (ball.size(best - x) > enough)
            going &= oracle.left >= probes + HALVINGS + self._precision(x)
            if not going.any():
                break
            # The size of the probes: a tenth of the pixel range at first, then what the search's precision asks for.
            reach = torch.full_like(distance, 0.1) if iteration == 1 else self._reach(distance, x)
            normal = self._normal(oracle, x, point, reach, probes, going, rng.fold("probes", iteration))
            stride, trying, ahead = distance / math.sqrt(iteration), going, point
            for _ in range(HALVINGS):
                if not trying.any():
                    break
                reached = self._inside(point + per_sample(stride, x) * normal)
                through = oracle.fooled(reached, trying)
                ahead = torch.where(per_sample(through, x), reached, ahead)
                trying, stride = trying & ~through, stride / 2
            point = self._approach(oracle, x, ahead, going)
            closer = ball.size(point - x) < ball.size(best - x)
            best = torch.where(per_sample(closer, x), point, best)
        return best

    def _start(self, oracle: "_Oracle", x: Tensor, rng: SampleRandom) -> tuple[Tensor, Tensor]:
        """An adversarial point where one was found, and where it was and is not x itself: [B, ...], [B]"""
        point = x
        searching = ~oracle.fooled(x, torch.ones_like(oracle.y, dtype=torch.bool))
        found = torch.zeros_like(searching)
        for attempt in range(min(self.starts, oracle.queries - 1)):
            if not searching.any():
                break
            candidate = self._random_image(x, attempt, rng.fold("start", attempt))
            fooled = oracle.fooled(candidate, searching)
            point = torch.where(per_sample(fooled, x), candidate, point)
            found, searching = found | fooled, searching & ~fooled
        return point, found

    def _random_image(self, x: Tensor, attempt: int, rng: SampleRandom) -> Tensor:
        """Uniform in the domain (without one: in x's neighbourhood), in patches of 1, 2, 4, ... pixels; every second
        image in its two extreme colours only.  Most models take all noise for one class; some starts must look else."""
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

    def _inside(self, point: Tensor) -> Tensor:
        return point if self.threat.domain is None else point.clamp(*self.threat.domain)

    def _precision(self, x: Tensor) -> int:
        """Halvings until an interval is as short as the boundary's curvature asks: d^-3/2 in l2, d^-2 in linf."""
        power = 2.0 if isinstance(self.threat.ball, Linf) else 1.5
        return min(math.ceil(power * math.log2(max(math.prod(x.shape[1:]), 2))), HALVINGS)

    def _reach(self, distance: Tensor, x: Tensor) -> Tensor:
        """The length of a probe, distance / d, but so long that its pixels, 1 / sqrt(d) of it, survive rounding."""
        size = math.prod(x.shape[1:])
        return (distance / size).clamp(min=16 * torch.finfo(x.dtype).eps * math.sqrt(size))

    def _approach(self, oracle: "_Oracle", x: Tensor, point: Tensor, going: Tensor) -> Tensor:
        """The adversarial point next to the boundary between `point`, which is adversarial, and x."""
        ball, away = self.threat.ball, point - x
        low, high = torch.zeros_like(going, dtype=x.dtype), torch.ones_like(going, dtype=x.dtype)
        largest, nearest = per_sample(ball.size(away), x), point
        for _ in range(self._precision(x)):
            middle = (low + high) / 2
            part = per_sample(middle, x)
            linf = isinstance(ball, Linf)
            candidate = x + (away.clamp(-part * largest, part * largest) if linf else part * away)
            fooled = oracle.fooled(candidate, going)
            high, low = torch.where(fooled, middle, high), torch.where(fooled, low, middle)
            nearest = torch.where(per_sample(fooled, x), candidate, nearest)
        return nearest

    def _normal(
        self, oracle: "_Oracle", x: Tensor, point: Tensor, reach: Tensor, probes: int, going: Tensor, rng: SampleRandom
    ) -> Tensor:
        """Where adversarial points lie, seen from `point`: the direction of the ball's steepest step.  [B, ...]

        mean over probes u of (phi(u) - mean phi) u, phi = 1 where point + reach · u is adversarial, else -1; the mean
        is left in where all probes agree.
        """
        signed, plain, total = torch.zeros_like(point), torch.zeros_like(point), torch.zeros_like(reach)
        scale = per_sample(reach.clamp(min=torch.finfo(x.dtype).tiny), x)
        for probe in range(probes):
            draw = rng.fold(probe)
            noise = 2 * draw.uniform(x) - 1 if isinstance(self.threat.ball, Linf) else draw.normal(x)
            noise = noise / per_sample(L2(0).size(noise), x)
            seen = self._inside(point + scale * noise)
            sign = oracle.fooled(seen, going).to(x.dtype) * 2 - 1
            moved = (seen - point) / scale
            signed, plain, total = signed + per_sample(sign, x) * moved, plain + moved, total + sign
        mean = total / probes
        mean = torch.where(mean.abs() == 1, 0, mean)
        return self.threat.ball.steepest((signed - per_sample(mean, x) * plain).nan_to_num())


@dataclass
class _Oracle:
    """The model reduced to right or wrong, and how often each sample may still ask."""

    model: Model
    y: Tensor
    queries: int
    left: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.left = torch.full_like(self.y, self.queries)

    def fooled(self, points: Tensor, asking: Tensor) -> Tensor:
        """Whether the model errs on each point; False for samples that do not ask or have used up their queries."""
        asking = (asking & (self.left > 0)).nonzero()[:, 0]
        wrong = torch.zeros_like(self.y, dtype=torch.bool)
        if len(asking):
            self.left[asking] -= 1
            wrong[asking] = scores(rows(self.model, asking), points[asking]).argmax(1) != self.y[asking]
        return wrong
