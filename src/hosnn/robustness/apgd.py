"""Auto-PGD: projected gradient ascent that chooses its own step sizes (Croce & Hein 2020, arXiv 2003.01690).

Shapes: x [B, ...], y [B].
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Linf, per_sample
from hosnn.robustness.losses import Loss, TargetedLoss, WithTarget, cross_entropy, misclassified, targeted_dlr
from hosnn.robustness.model import Model, scores
from hosnn.robustness.pgd import Start, on_sphere
from hosnn.robustness.scheduled_ascent import (
    AscentState,
    AttackRun,
    BestPoints,
    Schedule,
    ScheduledAscent,
    best_of_runs,
    with_restarts,
)
from hosnn.robustness.threats import Threat


def momentum_step(threat: Threat, state: AscentState) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Auto-PGD's step, s its size and x_prev the point before x:

    z = P(x + s · eps · steepest(grad));    x <- P(x + 0.75 (z - x) + 0.25 (x - x_prev)),    at first x <- z
    """
    x_adv, ball = state.x_adv, threat.ball
    step = per_sample(state.step_size * ball.eps, x_adv) * ball.steepest(state.gradient)
    point = threat.project(x_adv + step, state.x)
    for previous in state.momentum:
        point = threat.project(x_adv + 0.75 * (point - x_adv) + 0.25 * (x_adv - previous), state.x)
    return point, (x_adv,)


def _check(name: str, threat: Threat, **counts: int) -> None:
    if any(count < 1 for count in counts.values()):
        settings = ", ".join(f"{key} = {count}" for key, count in counts.items())
        raise ConfigError(f"{name} got {settings}; expected at least 1 of each")
    if not isinstance(threat.ball, (Linf, L2)):
        raise ConfigError(f"{name} got the threat {threat}; it supports linf and l2; use PGD for other balls")


@identified("APGD")
@dataclass(frozen=True)
class APGD:
    """Auto-PGD (Croce & Hein 2020): momentum 0.75, steps of 2 eps at first, halved per sample by `Schedule`.

    loss      cross_entropy for APGD-CE, dlr for APGD-DLR
    restarts  independent runs, each on the samples that no run before it fooled
    rho       share of steps that must raise the loss for the step size to stay
    Returns per sample the first adversarial point reached, else the point of largest loss.
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
        ascent = ScheduledAscent(self.threat, self.start, momentum_step, 2.0, Schedule(self.steps, self.rho))
        return with_restarts(ascent, self.restarts, self.loss, model, x, y, rng)


@identified("APGDTargeted")
@dataclass(frozen=True)
class APGDTargeted:
    """Auto-PGD towards each of the most likely wrong classes in turn (APGD-T of AutoAttack, Croce & Hein 2020).

    targets   how many, in the order of the model's scores for the clean input; at most all classes but the label
    restarts  independent runs towards each target
    A sample misclassified as any class is broken and skips the remaining targets; one misclassified when clean is
    returned unchanged.  Costs one forward pass beyond those of the runs.
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
        clean_scores = scores(model, x)
        robust = (~misclassified(clean_scores, y)).nonzero()[:, 0]
        logits = clean_scores.mean(0) if clean_scores.dim() == 3 else clean_scores
        others = logits.scatter(1, y[:, None], -float("inf"))
        ranked = others.sort(dim=1, descending=True, stable=True).indices
        ascent = ScheduledAscent(self.threat, self.start, momentum_step, 2.0, Schedule(self.steps, self.rho))

        def towards(rank: int, restart: int) -> AttackRun:
            def run(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, positions: Tensor) -> BestPoints:
                target, stream = ranked[positions, rank], rng.fold("run", rank, restart)
                return ascent(model, x, y, stream, lambda chosen: WithTarget(self.loss, target[chosen]))

            return run

        ranks = range(min(self.targets, logits.shape[1] - 1))
        runs = [towards(rank, restart) for rank in ranks for restart in range(self.restarts)]
        return best_of_runs(runs, model, x, y, rng, robust)
