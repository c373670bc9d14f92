"""A probe during training: attacks other than the one trained on, whose accuracy chooses the best epoch."""

import math
from dataclasses import dataclass

from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import lost
from hosnn.robustness.model import Attack, Model, scores


@identified("Probe")
@dataclass(frozen=True)
class Probe:
    """Attacks on validation images after each epoch, each on the images that withstood those before it.

    The best epoch is the one in which most images withstand all of them.  A network trained on single steps through one
    gradient estimator can come to hide from just that attack (catastrophic overfitting; Wong et al. 2020), so the probe
    should hold several steps and several estimators.
    attacks   in their order; a tie for the largest logit counts as lost
    images    of the validation split, a balanced choice
    collapse  training ends after an epoch whose probe lies this far below the best one's; the best epoch is kept.
              Of fewer than 200 images it has to lie further below, as chance moves them more (`has_collapsed`)
    """

    attacks: tuple[Attack, ...]
    images: int = 500
    collapse: float = 0.1

    def __post_init__(self) -> None:
        if not self.attacks or self.images < 1 or not 0 < self.collapse <= 1:
            raise ConfigError(
                f"Probe got {len(self.attacks)} attacks, images = {self.images}, collapse = {self.collapse}; expected "
                "at least one attack and image, and a share in (0, 1]"
            )

    def has_collapsed(self, best: float, now: float, images: int) -> bool:
        """Whether the probe fell by more than `collapse`, and by more than chance: two standard deviations.

        best, now  shares of the images that withstood the attacks
        images     how many there were; the deviation is at most sqrt(0.5 / images)
        """
        return best - now > max(self.collapse, 2 * math.sqrt(0.5 / images))

    def withstood(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        """Which samples are classified correctly, without a tie, clean and after every attack [B].

        x  images [B, C, H, W], or frames; y  labels [B]
        """
        robust = ~lost(scores(model, x), y)
        for attack in self.attacks:
            rows = robust.nonzero()[:, 0]
            if len(rows):
                attacked = attack(model, x[rows], y[rows], rng.subset(rows))
                robust[rows] = ~lost(scores(model, attacked), y[rows])
        return robust
