"""Attacks on frames of event recordings: at most so many events removed or added, whole ones, each at its own place.

Shapes: B batch, T time bins, C polarities, H height, W width; frames x [B, T, C, H, W] hold counts of events over the
most that a place can have; y [B].  A place is a time bin, a polarity and a pixel.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Events
from hosnn.robustness.losses import Loss, lost, margin
from hosnn.robustness.model import Model, input_gradient, scores, subset, without_state
from hosnn.robustness.threats import Threat


@identified("GreedyEvents")
@dataclass(frozen=True)
class GreedyEvents:
    """Change the events that raise the loss most to first order, some at a time, each time by the gradient g there:

        gain of an event that is added at a place: g;   of one that is removed: -g

    steps  gradients at most: each changes as many places, at least one, as use up the n events by the last; only places
           that were not changed before and have a gain
    Returns per sample the first adversarial frames, else those of largest loss.
    Raises ConfigError for a threat that is none to events.
    """

    norms: ClassVar[tuple[str, ...]] = ("events",)
    threat: Threat
    steps: int = 20
    loss: Loss = margin

    def __post_init__(self) -> None:
        _events_of(self.threat, "GreedyEvents")
        if self.steps < 1:
            raise ConfigError(f"GreedyEvents got steps = {self.steps}; expected at least 1")

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        ball, best = _events_of(self.threat, "GreedyEvents"), x.clone()
        largest = torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
        rows, x_adv, left = torch.arange(len(x), device=x.device), x.clone(), ball.count
        for step in range(self.steps + 1):
            part = model if len(rows) == len(x) else subset(model, rows)
            evaluated = input_gradient(part, x_adv, y[rows], self.loss)
            fooled = lost(evaluated.scores, y[rows])
            better = fooled | (evaluated.loss > largest[rows])
            best[rows[better]], largest[rows[better]] = x_adv[better], evaluated.loss[better].to(x.dtype)
            if fooled.all() or step == self.steps or not left:
                break
            rows, x_adv, gradient = rows[~fooled], x_adv[~fooled], evaluated.gradient[~fooled].nan_to_num()
            count = math.ceil(left / (self.steps - step))
            unchanged = torch.where(x_adv == x[rows], gradient, 0)
            x_adv = x_adv + Events.of(count, ball.maximum).furthest(unchanged, x_adv)
            left -= count
        return best


@identified("RandomEvents")
@dataclass(frozen=True)
class RandomEvents:
    """As many events as allowed removed or added at random places, several times: what needs no gradient.

    Returns per sample the first adversarial frames, else the last.
    Raises ConfigError for a threat that is none to events.
    """

    norms: ClassVar[tuple[str, ...]] = ("events",)
    threat: Threat
    tries: int = 20

    def __post_init__(self) -> None:
        _events_of(self.threat, "RandomEvents")
        if self.tries < 1:
            raise ConfigError(f"RandomEvents got tries = {self.tries}; expected at least 1")

    @torch.no_grad()
    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        ball, best, rows = _events_of(self.threat, "RandomEvents"), x.clone(), torch.arange(len(x), device=x.device)
        for number in range(self.tries):
            best[rows] = x[rows] + ball.sample(x[rows], rng.subset(rows).fold("try", number))
            part = model if len(rows) == len(x) else subset(without_state(model), rows)
            rows = rows[~lost(scores(part, best[rows]), y[rows])]
            if not len(rows):
                break
        return best


def _events_of(threat: Threat, attack: str) -> Events:
    if not isinstance(threat.ball, Events):
        raise ConfigError(f"{attack} got the threat {threat}; expected one to events, e.g. events:20/8")
    return threat.ball
