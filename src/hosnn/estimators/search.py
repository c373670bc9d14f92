"""Searching the one number that ASSG leaves open, for every sample by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.rules import differentiated
from hosnn.estimators.sharpness import AdaptiveSharpness
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Attack, Model, rows, scores
from hosnn.robustness.pgd import misclassified


@identified("SearchedSharpness")
@dataclass(frozen=True)
class SearchedSharpness:
    """ASSG with A/2 found by ternary search: which of two values lets `probe` reach the larger margin?

    attack     run at the best value found and, on what still stands, at the default one of `settings`: no sample that
               ASSG without a search fools is missed
    probe      a short attack to search with; None for `attack` itself
    low, high  the interval searched
    rounds     of the search, two probes each; a round leaves two thirds of the interval
    Source: Wang et al., arXiv:2512.22522, and its code: 8 rounds over [0.35, 0.49] with full attacks, one value for a
    whole test set, chosen by accuracy.  Ours: one value per sample, chosen by margin max_{j != y} z_j - z_y, so that
    samples stay independent; the best point of all probes is kept.
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
        best = _Best(model, x, y, (low + high) / 2)
        probe = self.probe or self.attack
        for number in range(self.rounds):
            third, same = (high - low) / 3, rng.fold("sharpness", number)  # draws must not decide between the two
            reached = [best.improve(probe, self.settings, tried, same) for tried in (low + third, high - third)]
            downward = reached[0] > reached[1]
            low, high = torch.where(downward, low, low + third), torch.where(downward, high - third, high)
        for vanishing in (best.vanishing, torch.full_like(low, self.settings.vanishing)):
            best.improve(self.attack, self.settings, vanishing, rng)
        return best.point if best.point is not None else x


class _Best:
    """The best point so far of each sample, its margin and its A/2; samples once misclassified are left in peace."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, vanishing: Tensor) -> None:
        self.model, self.x, self.y, self.vanishing = model, x, y, vanishing.clone()
        self.margin = torch.full_like(vanishing, -float("inf"))
        self.lost = torch.zeros_like(y, dtype=torch.bool)
        self.point: Tensor | None = None  # has another shape than x where the attack returns frames

    def improve(self, attack: Attack, settings: AdaptiveSharpness, vanishing: Tensor, rng: SampleRandom) -> Tensor:
        """Attack the standing samples at their A/2 `vanishing` [B]; the margin each reaches [B], others -inf."""
        reached = torch.full_like(self.margin, -float("inf"))
        robust = (~self.lost).nonzero()[:, 0]
        if not len(robust):
            return reached
        inside, x, y = rows(self.model, robust), self.x[robust], self.y[robust]
        twin = differentiated(inside, settings, len(robust), vanishing[robust])
        points = attack(twin, x, y, rng.rows(robust))
        found = scores(inside, points)
        logits = found.mean(0) if found.dim() == 3 else found  # outputs over time
        reached[robust] = margin(logits, y).nan_to_num(nan=-float("inf")).to(reached.dtype)
        if self.point is None:
            self.point = points.clone()
        self.lost[robust] = wrong = misclassified(found, y)
        better = reached > self.margin
        better[robust] |= wrong  # an argmax may fall on the wrong one of two equal scores, at a margin of 0
        chosen = better[robust]
        self.point[robust[chosen]] = points[chosen]
        self.margin = torch.where(better, reached, self.margin)
        self.vanishing = torch.where(better, vanishing, self.vanishing)
        return reached
