"""ASSG with its free parameter A/2 searched for each sample."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.rules import differentiated
from hosnn.estimators.sharpness import AdaptiveSharpness
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import margin, misclassified
from hosnn.robustness.model import Attack, Model, scores, subset


@identified("SearchedSharpness")
@dataclass(frozen=True)
class SearchedSharpness:
    """ASSG with A/2 by ternary search: of two values, the one at which `probe` reaches the larger margin is better.

    attack     run at the best value of each sample, then on samples still robust at the default one of `settings`, so
               that the search breaks every sample that ASSG without it breaks
    probe      a short attack to search with; None for `attack` itself
    low, high  the interval to search
    rounds     of the search, two probes each; a round keeps two thirds of the interval
    Source: Wang et al., arXiv:2512.22522, and its code: 8 rounds over [0.35, 0.49] with full attacks, one value for a
    whole test set, chosen by accuracy.  Ours: one value per sample, chosen by margin max_{j != y} z_j - z_y, so that
    samples stay independent; the best point of all probes counts.
    """

    attack: Attack
    probe: Attack | None = None
    low: float = 0.35
    high: float = 0.49
    rounds: int = 4
    settings: AdaptiveSharpness = AdaptiveSharpness()  # noqa: RUF009  (a frozen value)

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < 0.5 or self.rounds < 1:
            raise ConfigError(
                f"SearchedSharpness got [{self.low!r}, {self.high!r}] and rounds = {self.rounds!r}; expected "
                "0 < low < high < 0.5 and at least one round"
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        low, high = x.new_full((len(y),), self.low), x.new_full((len(y),), self.high)
        state = _SearchState(model, x, y, (low + high) / 2)
        probe = self.probe or self.attack
        for number in range(self.rounds):
            third, stream = (high - low) / 3, rng.fold("sharpness", number)  # the same draws for both values
            margins = [state.improve(probe, self.settings, value, stream) for value in (low + third, high - third)]
            lower = margins[0] > margins[1]
            low, high = torch.where(lower, low, low + third), torch.where(lower, high - third, high)
        for vanishing in (state.vanishing, torch.full_like(low, self.settings.vanishing)):
            state.improve(self.attack, self.settings, vanishing, rng)
        return state.point if state.point is not None else x


class _SearchState:
    """The best point so far of each sample, its margin and its A/2; a misclassified sample is not attacked again."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, vanishing: Tensor) -> None:
        self.model, self.x, self.y, self.vanishing = model, x, y, vanishing.clone()
        self.margin = torch.full_like(vanishing, -float("inf"))
        self.broken = torch.zeros_like(y, dtype=torch.bool)
        self.point: Tensor | None = None  # of another shape than x if the attack returns frames

    def improve(self, attack: Attack, settings: AdaptiveSharpness, vanishing: Tensor, rng: SampleRandom) -> Tensor:
        """Attack the robust samples at A/2 = `vanishing` [B]; returns the margins reached [B], -inf for the others."""
        margins = torch.full_like(self.margin, -float("inf"))
        robust = (~self.broken).nonzero()[:, 0]
        if not len(robust):
            return margins
        model, x, y = subset(self.model, robust), self.x[robust], self.y[robust]
        points = attack(differentiated(model, settings, len(robust), vanishing[robust]), x, y, rng.subset(robust))
        outputs = scores(model, points)
        logits = outputs.mean(0) if outputs.dim() == 3 else outputs  # [T, B, K] or [B, K]
        margins[robust] = margin(logits, y).nan_to_num(nan=-float("inf")).to(margins.dtype)
        if self.point is None:
            self.point = points.clone()
        self.broken[robust] = wrong = misclassified(outputs, y)
        better = margins > self.margin
        better[robust] |= wrong
        improved = better[robust]
        self.point[robust[improved]] = points[improved]
        self.margin = torch.where(better, margins, self.margin)
        self.vanishing = torch.where(better, vanishing, self.vanishing)
        return margins
