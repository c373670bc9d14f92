"""Projected gradient ascent with step sizes halved on a schedule: the loop that Auto-PGD and SA-PGD share.

A `StepRule` makes the steps, a `Schedule` shortens them; `with_restarts` and `best_of_runs` make several runs.
Shapes: x [B, ...], y [B]; the state has [b, ...], the b samples not yet misclassified.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hosnn.rng import SampleRandom
from hosnn.robustness.balls import per_sample
from hosnn.robustness.grid import through_grid
from hosnn.robustness.losses import Loss, misclassified, tied
from hosnn.robustness.model import InputGradient, Model, input_gradient, subset, without_state
from hosnn.robustness.pgd import Start
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class AscentState:
    """The samples still under attack: their current and best points, and what decides their next steps."""

    position: Tensor  # in the batch                           [b]
    x: Tensor  # the clean input                               [b, ...]
    y: Tensor  # its label                                     [b]
    x_adv: Tensor  # the current point                         [b, ...]
    gradient: Tensor  # of the loss at x_adv, finite           [b, ...]
    loss: Tensor  # at x_adv                                   [b]
    best_x: Tensor  # the point of largest loss so far         [b, ...]
    best_gradient: Tensor  # at best_x                         [b, ...]
    best_loss: Tensor  # at best_x                             [b]
    step_size: Tensor  # as a fraction of eps                  [b]
    rises: Tensor  # steps that raised the loss since the last checkpoint  [b]
    checkpoint_loss: Tensor  # best_loss at the last checkpoint            [b]
    halved: Tensor  # whether that checkpoint halved the step size         [b]
    momentum: tuple[Tensor, ...]  # what the step rule carries from step to step, each  [b, ...]

    def subset(self, chosen: Tensor) -> "AscentState":
        """The state of some of its samples."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "momentum"}
        return AscentState(
            **{name: value[chosen] for name, value in values.items()},
            momentum=tuple(value[chosen] for value in self.momentum),
        )


def _finite(evaluated: InputGradient) -> tuple[Tensor, Tensor]:
    """Gradient and loss: NaN in a gradient becomes 0, a loss of NaN becomes -inf."""
    loss = evaluated.loss.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return evaluated.gradient.nan_to_num(), loss


def _initial_state(x: Tensor, y: Tensor, x_adv: Tensor, evaluated: InputGradient, step_size: float) -> AscentState:
    position, zeros = torch.arange(len(y), device=y.device), torch.zeros_like(y)
    gradient, loss = _finite(evaluated)
    return AscentState(
        position,
        x,
        y,
        x_adv,
        gradient,
        loss,
        best_x=x_adv,
        best_gradient=gradient,
        best_loss=loss,
        step_size=torch.full_like(loss, step_size, dtype=x.dtype),
        rises=zeros,
        checkpoint_loss=loss,
        halved=zeros > 0,
        momentum=(),
    )


def _after_step(
    state: AscentState, x_adv: Tensor, momentum: tuple[Tensor, ...], evaluated: InputGradient
) -> AscentState:
    gradient, loss = _finite(evaluated)
    better = loss > state.best_loss
    return replace(
        state,
        x_adv=x_adv,
        gradient=gradient,
        loss=loss,
        momentum=momentum,
        rises=state.rises + (loss > state.loss),
        best_x=torch.where(per_sample(better, x_adv), x_adv, state.best_x),
        best_gradient=torch.where(per_sample(better, gradient), gradient, state.best_gradient),
        best_loss=torch.where(better, loss, state.best_loss),
    )


@dataclass(frozen=True)
class Schedule:
    """When step sizes are halved (Croce & Hein 2020, arXiv 2003.01690).  Checkpoints lie at p_j · steps, rounded up:

        p_0 = 0,   p_1 = 0.22,   p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)

    At each, a sample's step size is halved if (1) fewer than `rho` of the steps since the last one raised its loss, or
    (2) the last one left its step size and its best loss unchanged since.
    rho        inf halves at every checkpoint
    from_best  a sample whose step size is halved continues from its best point
    """

    steps: int
    rho: float = 0.75
    from_best: bool = True

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of steps after which checkpoints lie, ascending."""
        percent, interval, step_counts = 22, 22, []  # of `steps`; integers are exact, 0.22 · 100 need not be 22
        while percent <= 100:
            step_counts.append(-(-percent * self.steps // 100))
            interval = max(interval - 3, 6)
            percent += interval
        return tuple(dict.fromkeys(step_counts))

    def apply(self, state: AscentState, window: int) -> AscentState:
        """The state after a checkpoint that lies `window` steps after the one before."""
        halved = (state.rises < self.rho * window) | (~state.halved & (state.best_loss <= state.checkpoint_loss))
        state = replace(
            state,
            step_size=torch.where(halved, state.step_size / 2, state.step_size),
            rises=torch.zeros_like(state.rises),
            checkpoint_loss=state.best_loss,
            halved=halved,
        )
        if not self.from_best:
            return state
        restored = per_sample(halved, state.x)
        return replace(
            state,
            x_adv=torch.where(restored, state.best_x, state.x_adv),
            gradient=torch.where(restored, state.best_gradient, state.gradient),
            loss=torch.where(halved, state.best_loss, state.loss),
        )


StepRule = Callable[[Threat, AscentState], tuple[Tensor, tuple[Tensor, ...]]]
"""(threat, state) -> the next point within the threat [b, ...], and the momentum for the step after it"""


class BestPoints(NamedTuple):
    """Per sample the first misclassified point reached, else the last tied one, else that of largest loss."""

    x_adv: Tensor  # [B, ...]
    fooled: Tensor  # whether the point is misclassified  [B]
    tied: Tensor  # whether its label is tied             [B]
    loss: Tensor  # the largest reached                   [B]

    def better_than(self, other: "BestPoints", at: Tensor) -> Tensor:
        """Which of these samples [b] have a better point than `other` has at positions `at` [b]."""
        fooled, tie, loss = (values[at] for values in other[1:])
        return self.fooled & ~fooled | ~fooled & (self.tied & ~tie | (self.tied == tie) & (self.loss > loss))

    def update(self, found: "BestPoints", at: Tensor) -> None:
        """Replace the points at positions `at` by those of `found` where these are better."""
        better = found.better_than(self, at)
        for values, new in zip(self, found, strict=True):
            values[at[better]] = new[better]


@dataclass(frozen=True)
class ScheduledAscent:
    """Gradient ascent from `start` by steps of `rule`, the first of size step_size · eps, halved as scheduled."""

    threat: Threat
    start: Start
    rule: StepRule
    step_size: float
    schedule: Schedule

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom, loss_of: Callable[[Tensor], Loss]
    ) -> BestPoints:
        """One run; a sample once misclassified costs no more passes.

        loss_of  the loss of some of the samples, by position
        Takes at most steps + 1 forward and backward passes a sample.
        """
        model, threat = through_grid(model, self.threat, x), self.threat.relaxed
        x_adv = threat.project(x + self.start(threat.ball, x, rng.fold("start")), x)
        evaluated = input_gradient(model, x_adv, y, loss_of(torch.arange(len(y), device=y.device)))
        state = _initial_state(x, y, x_adv, evaluated, self.step_size)
        nothing = torch.zeros_like(y, dtype=torch.bool)
        result = BestPoints(x_adv.clone(), nothing, nothing.clone(), state.loss.clone())
        checkpoints, last_checkpoint = self.schedule.checkpoints, 0
        for steps_taken in range(self.schedule.steps + 1):
            if steps_taken:
                point, momentum = self.rule(threat, state)
                evaluated = input_gradient(model, point, state.y, loss_of(state.position))
                state = _after_step(state, point, momentum, evaluated)
            wrong, tie = misclassified(evaluated.scores, state.y), tied(evaluated.scores, state.y)
            if tie.any():
                result.x_adv[state.position[tie]], result.tied[state.position[tie]] = state.x_adv[tie], True
            if wrong.any():
                done = state.position[wrong]
                result.x_adv[done], result.loss[done], result.fooled[done] = state.x_adv[wrong], state.loss[wrong], True
                model, state = subset(model, ~wrong), state.subset(~wrong)
                if len(state.y) == 0:
                    break
            if steps_taken in checkpoints:
                state, last_checkpoint = self.schedule.apply(state, steps_taken - last_checkpoint), steps_taken
        result.loss[state.position] = state.best_loss
        untied = ~result.tied[state.position]
        result.x_adv[state.position[untied]] = state.best_x[untied]
        return result._replace(x_adv=self.threat.rounded(result.x_adv, x))


AttackRun = Callable[[Model, Tensor, Tensor, SampleRandom, Tensor], BestPoints]
"""(model, x, y, rng, positions of these samples in the batch) -> BestPoints"""


def best_of_runs(
    runs: Sequence[AttackRun], model: Model, x: Tensor, y: Tensor, rng: SampleRandom, robust: Tensor
) -> Tensor:
    """Make the runs in order, each on the samples at positions `robust` that no run before it fooled.

    returns  per sample an adversarial point, else that of largest loss; other samples unchanged  [B, ...]
    """
    best = None
    for number, run in enumerate(runs):
        if len(robust) == 0:
            break
        run_model = subset(without_state(model) if number else model, robust)
        found = run(run_model, x[robust], y[robust], rng.subset(robust), robust)
        if best is None:
            nothing, loss = torch.zeros_like(y, dtype=torch.bool), found.loss.new_full(y.shape, -float("inf"))
            best = BestPoints(x.clone(), nothing, nothing.clone(), loss)
        best.update(found, robust)
        robust = robust[~found.fooled]
    return x if best is None else best.x_adv


def with_restarts(
    ascent: ScheduledAscent, restarts: int, loss: Loss, model: Model, x: Tensor, y: Tensor, rng: SampleRandom
) -> Tensor:
    """Independent runs, each from a starting point of its own."""

    def restart(number: int) -> AttackRun:
        def run(model: Model, x: Tensor, y: Tensor, rng: SampleRandom, positions: Tensor) -> BestPoints:
            return ascent(model, x, y, rng.fold("restart", number) if number else rng, lambda chosen: loss)

        return run

    runs, all_samples = [restart(number) for number in range(restarts)], torch.arange(len(y), device=y.device)
    return best_of_runs(runs, model, x, y, rng, all_samples)
