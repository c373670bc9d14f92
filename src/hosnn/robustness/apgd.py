"""Auto-PGD: projected gradient ascent that chooses its own step sizes (Croce & Hein 2020, arXiv 2003.01690).

`Climb` is the walk that attacks of this kind share; a `Rule` makes its steps, a `Schedule` shortens them.
Shapes: x [B, ...], y [B]; a walk keeps [b, ...], the b samples still without an adversarial point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import Aimed, Loss, TargetedLoss, cross_entropy, targeted_dlr
from hosnn.robustness.model import Ascent, Model, fresh, input_gradient, rows, scores
from hosnn.robustness.pgd import Start, misclassified, on_sphere
from hosnn.robustness.threats import L2, Linf, Threat, per_sample


@dataclass(frozen=True)
class Walk:
    """Where the samples stand that are still being attacked, and all that decides their next steps."""

    sample: Tensor  # position in the batch                    [b]
    x: Tensor  # the clean input                               [b, ...]
    y: Tensor  # its label                                     [b]
    x_adv: Tensor  # the point                                 [b, ...]
    gradient: Tensor  # of the loss there, finite              [b, ...]
    loss: Tensor  # there                                      [b]
    best_x: Tensor  # the point of largest loss so far         [b, ...]
    best_gradient: Tensor  # there                             [b, ...]
    best_loss: Tensor  # there                                 [b]
    size: Tensor  # of a step, as a fraction of eps            [b]
    rises: Tensor  # steps that raised the loss since the last checkpoint  [b]
    checked: Tensor  # best_loss at the last checkpoint        [b]
    halved: Tensor  # whether that checkpoint halved the size  [b]
    memory: tuple[Tensor, ...]  # what the rule remembers, each  [b, ...]

    def rows(self, chosen: Tensor) -> "Walk":
        """The walk of some of its samples."""
        values = {field.name: getattr(self, field.name)[chosen] for field in fields(self) if field.name != "memory"}
        return Walk(**values, memory=tuple(value[chosen] for value in self.memory))


def _finite(seen: Ascent) -> tuple[Tensor, Tensor]:
    """A gradient that is not a number counts as none, such a loss as no improvement."""
    return seen.gradient.nan_to_num(), seen.loss.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _begin(x: Tensor, y: Tensor, x_adv: Tensor, seen: Ascent, size: float) -> Walk:
    sample, none = torch.arange(len(y), device=y.device), torch.zeros_like(y)
    gradient, loss = _finite(seen)
    sizes = torch.full_like(loss, size, dtype=x.dtype)
    best = (x_adv, gradient, loss)
    return Walk(sample, x, y, x_adv, gradient, loss, *best, sizes, rises=none, checked=loss, halved=none > 0, memory=())


def _arrive(walk: Walk, x_adv: Tensor, memory: tuple[Tensor, ...], seen: Ascent) -> Walk:
    gradient, loss = _finite(seen)
    better = loss > walk.best_loss
    rises = walk.rises + (loss > walk.loss)
    moved = replace(walk, x_adv=x_adv, gradient=gradient, loss=loss, memory=memory, rises=rises)
    return replace(
        moved,
        best_x=torch.where(per_sample(better, x_adv), x_adv, walk.best_x),
        best_gradient=torch.where(per_sample(better, gradient), gradient, walk.best_gradient),
        best_loss=torch.where(better, loss, walk.best_loss),
    )


@dataclass(frozen=True)
class Schedule:
    """When steps are halved.  Checkpoints lie at p_j · steps, rounded up:

        p_0 = 0,   p_1 = 0.22,   p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)

    At each, a sample's step size is halved if (1) fewer than `rho` of the steps since the last one raised its loss, or
    (2) the last one left its step size and its best loss unchanged since.
    rho        inf halves at every checkpoint
    from_best  a sample whose step is halved goes on from its best point
    """

    steps: int
    rho: float = 0.75
    from_best: bool = True

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of steps taken, ascending."""
        at, width, found = 22, 22, []  # hundredths of `steps`: exact, where 0.22 · 100 need not be 22
        while at <= 100:
            found.append(-(-at * self.steps // 100))
            width = max(width - 3, 6)
            at += width
        return tuple(dict.fromkeys(found))

    def check(self, walk: Walk, window: int) -> Walk:
        """At a checkpoint `window` steps after the one before."""
        halved = (walk.rises < self.rho * window) | (~walk.halved & (walk.best_loss <= walk.checked))
        walk = replace(
            walk,
            size=torch.where(halved, walk.size / 2, walk.size),
            rises=torch.zeros_like(walk.rises),
            checked=walk.best_loss,
            halved=halved,
        )
        if not self.from_best:
            return walk
        back = per_sample(halved, walk.x)
        return replace(
            walk,
            x_adv=torch.where(back, walk.best_x, walk.x_adv),
            gradient=torch.where(back, walk.best_gradient, walk.gradient),
            loss=torch.where(halved, walk.best_loss, walk.loss),
        )


Rule = Callable[[Threat, Walk], tuple[Tensor, tuple[Tensor, ...]]]
"""(threat, walk) -> the next point [b, ...], allowed, and what to remember"""


class AttackOutcome(NamedTuple):
    """Per sample the adversarial point met first, else the point of largest loss."""

    x_adv: Tensor  # [B, ...]
    fooled: Tensor  # whether the point is adversarial  [B]
    loss: Tensor  # there                               [B]


@dataclass(frozen=True)
class Climb:
    """How an attack climbs: from where, by which steps, the first of `size` · eps, shortened as scheduled."""

    threat: Threat
    start: Start
    rule: Rule
    size: float
    schedule: Schedule

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, loss_of: Callable[[Tensor], Loss]
    ) -> AttackOutcome:
        """Climb; a sample found misclassified on the way costs no more passes.

        loss_of  the loss of some of the samples, by position
        Takes at most steps + 1 forward and backward passes a sample.
        """
        x_adv = self.threat.project(x + self.start(self.threat.ball, x, rng.fold("start")), x)
        seen = input_gradient(model, x_adv, y, loss_of(torch.arange(len(y), device=y.device)))
        walk = _begin(x, y, x_adv, seen, self.size)
        found = AttackOutcome(x_adv.clone(), torch.zeros_like(y, dtype=torch.bool), walk.loss.clone())
        checkpoints, before = self.schedule.checkpoints, 0
        for number in range(self.schedule.steps + 1):
            if number:
                point, memory = self.rule(self.threat, walk)
                seen = input_gradient(model, point, walk.y, loss_of(walk.sample))
                walk = _arrive(walk, point, memory, seen)
            wrong = misclassified(seen.scores, walk.y)
            if wrong.any():
                there = walk.sample[wrong]
                found.x_adv[there], found.loss[there], found.fooled[there] = walk.x_adv[wrong], walk.loss[wrong], True
                model, walk = rows(model, ~wrong), walk.rows(~wrong)
                if len(walk.y) == 0:
                    break
            if number in checkpoints:
                walk, before = self.schedule.check(walk, number - before), number
        found.x_adv[walk.sample], found.loss[walk.sample] = walk.best_x, walk.best_loss
        return found


Attempt = Callable[[Model, Tensor, Tensor, SampleRandom, Tensor], AttackOutcome]
"""(model, x, y, rng, positions of these samples in the batch) -> AttackOutcome"""


def in_turn(runs: Sequence[Attempt], model: Model, x: Tensor, y: Tensor, rng: SampleRandom, robust: Tensor) -> Tensor:
    """Runs on the samples at `standing`, each on what those before it left; the others come back as they are.

    returns  per sample an adversarial point, else that of largest loss  [B, ...]
    """
    x_adv, loss = x.clone(), None
    for number, run in enumerate(runs):
        if len(robust) == 0:
            break
        begun = rows(fresh(model) if number else model, robust)
        found = run(begun, x[robust], y[robust], rng.rows(robust), robust)
        if loss is None:
            loss = found.loss.new_full(y.shape, -float("inf"))
        better = found.fooled | (found.loss > loss[robust])
        x_adv[robust[better]], loss[robust[better]] = found.x_adv[better], found.loss[better]
        robust = robust[~found.fooled]
    return x_adv


def restarted(climb: Climb, restarts: int, loss: Loss, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    """Independent climbs, each from a start of its own."""

    def once(number: int) -> Attempt:
        def run(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, positions: Tensor) -> AttackOutcome:
            return climb(model, x, y, rng.fold("restart", number) if number else rng, lambda chosen: loss)

        return run

    runs, everyone = [once(number) for number in range(restarts)], torch.arange(len(y), device=y.device)
    return in_turn(runs, model, x, y, rng, everyone)


def heavy_ball(threat: Threat, walk: Walk) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Auto-PGD's step, s the size of it and x_prev the point before x:

    z = P(x + s · eps · steepest(grad));    x <- P(x + 0.75 (z - x) + 0.25 (x - x_prev)),    at first x <- z
    """
    x_adv, ball = walk.x_adv, threat.ball
    stepped = threat.project(x_adv + per_sample(walk.size * ball.eps, x_adv) * ball.steepest(walk.gradient), walk.x)
    for previous in walk.memory:
        stepped = threat.project(x_adv + 0.75 * (stepped - x_adv) + 0.25 * (x_adv - previous), walk.x)
    return stepped, (x_adv,)


def _check(name: str, threat: Threat, **counts: int) -> None:
    if any(count < 1 for count in counts.values()):
        given = ", ".join(f"{key} = {count}" for key, count in counts.items())
        raise ConfigError(f"{name} got {given}; expected at least 1 of each")
    if not isinstance(threat.ball, (Linf, L2)):
        raise ConfigError(f"{name} got the threat {threat}; it supports linf and l2; use PGD for other balls")


@identified("APGD")
@dataclass(frozen=True)
class APGD:
    """Auto-PGD (Croce & Hein 2020): momentum 0.75, steps of 2 eps at first, halved per sample as `Schedule` says.

    loss      cross_entropy for APGD-CE, dlr for APGD-DLR
    restarts  independent runs, on what the runs before left standing
    rho       share of steps that must raise the loss for the step size to stay
    Returns per sample an adversarial point met on the way, else the point of largest loss.
    Raises ConfigError for balls other than Linf and L2.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    threat: Threat
    steps: int = 100
    restarts: int = 1
    loss: Loss = cross_entropy
    start: Start = on_sphere
    rho: float = 0.75

    def __post_init__(self) -> None:
        _check("APGD", self.threat, steps=self.steps, restarts=self.restarts)

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        climb = Climb(self.threat, self.start, heavy_ball, 2.0, Schedule(self.steps, self.rho))
        return restarted(climb, self.restarts, self.loss, model, x, y, rng)


@identified("APGDTargeted")
@dataclass(frozen=True)
class APGDTargeted:
    """Auto-PGD towards each of the most likely wrong classes in turn (APGD-T of AutoAttack, Croce & Hein 2020).

    targets   how many, in the order of the model's scores for the clean input; at most all classes but the label
    restarts  independent runs towards each target
    A sample counts as lost whatever wrong class it ends in, and then sees no more targets; one that is misclassified
    to begin with comes back as it is.  Costs one forward pass beyond those of the runs.
    Raises ConfigError for balls other than Linf and L2, and targeted_dlr for fewer than 4 classes.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    threat: Threat
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    loss: TargetedLoss = targeted_dlr
    start: Start = on_sphere
    rho: float = 0.75

    def __post_init__(self) -> None:
        _check("APGDTargeted", self.threat, steps=self.steps, targets=self.targets, restarts=self.restarts)

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        clean = scores(model, x)
        robust = (~misclassified(clean, y)).nonzero()[:, 0]
        logits = clean.mean(0) if clean.dim() == 3 else clean
        others = logits.scatter(1, y[:, None], -float("inf"))
        likely = others.sort(dim=1, descending=True, stable=True).indices
        climb = Climb(self.threat, self.start, heavy_ball, 2.0, Schedule(self.steps, self.rho))

        def towards(rank: int, number: int) -> Attempt:
            def run(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, positions: Tensor) -> AttackOutcome:
                target = likely[positions, rank]
                stream = rng.fold("run", rank, number)
                return climb(model, x, y, stream, lambda chosen: Aimed(self.loss, target[chosen]))

            return run

        ranks = range(min(self.targets, logits.shape[1] - 1))
        runs = [towards(rank, number) for rank in ranks for number in range(self.restarts)]
        return in_turn(runs, model, x, y, rng, robust)
