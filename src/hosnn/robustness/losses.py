"""Losses that attacks maximise: one number per sample from the model's scores.

Shapes: logits [B, K], labels y [B], targets [B], loss [B].  Higher means closer to misclassified, or to the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.identity import identified

Loss = Callable[[Tensor, Tensor], Tensor]


class TargetedLoss(Protocol):
    """(logits [B, K], y [B], target [B]) -> [B]: higher means closer to being classified as `target`."""

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor, /) -> Tensor: ...


@identified("cross_entropy")
def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y]."""
    return functional.cross_entropy(logits, y, reduction="none")


@identified("scaled_cross_entropy")
def scaled_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits / s)[y], s the standard deviation of the sample's own logits, held fixed in the gradient.

    Logits that are large or far apart saturate the softmax, and cross-entropy's gradient underflows to exactly zero;
    this loss and its gradient's direction are the same at every scale of the logits.  Raises ConfigError for fewer than
    3 classes: of two logits divided by their standard deviation only the order would remain.
    """
    _expect_classes("scaled_cross_entropy", logits, 3)
    spread = logits.detach().std(1, correction=0, keepdim=True)
    return cross_entropy(logits / torch.where(spread > 0, spread, 1), y)


@identified("margin")
def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} logits[j] - logits[y]: above 0 when misclassified, 0 at a tie (Carlini & Wagner 2017)."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -float("inf"))
    return others.amax(1) - own


def misclassified(scores: Tensor, y: Tensor) -> Tensor:
    """Which samples are misclassified [B]; of classes that share the largest logit the first is predicted.

    scores  logits [B, K], or outputs over time [T, B, K], whose mean over time counts
    """
    return _logits(scores).argmax(1) != y


def tied(scores: Tensor, y: Tensor) -> Tensor:
    """Which samples have a label that shares the largest logit with another class [B], so that only the order of the
    classes decides.  scores  as for `misclassified`
    """
    return margin(_logits(scores), y) == 0


def lost(scores: Tensor, y: Tensor) -> Tensor:
    """Which samples are misclassified or tied [B]; `scores` as for `misclassified`."""
    return misclassified(scores, y) | tied(scores, y)


def _logits(scores: Tensor) -> Tensor:
    return scores.mean(0) if scores.dim() == 3 else scores


@identified("dlr")
def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020), z sorted downwards as z_(1) >= z_(2) >= ...:

        (max_{j != y} z_j - z_y) / (z_(1) - z_(3))

    Shifting or scaling the logits does not change it, so it cannot saturate or be masked by scale.
    Where the three largest are equal the ratio is undefined and the loss is the margin.
    Raises ConfigError for fewer than 3 classes.
    """
    _expect_classes("dlr", logits, 3)
    largest = logits.topk(3, dim=1).values
    return margin(logits, y) / _positive(largest[:, 0] - largest[:, 2])


@identified("targeted_cross_entropy")
def targeted_cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """log softmax(logits)[target]."""
    return -cross_entropy(logits, target)


@identified("targeted_margin")
def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """logits[target] - max_{j != target} logits[j]: positive exactly when classified as `target`."""
    return -margin(logits, target)


@identified("targeted_dlr")
def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce & Hein 2020), z sorted downwards as in `dlr`:

        (z_target - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)

    Where the four largest are equal the loss is z_target - z_y.  Raises ConfigError for fewer than 4 classes.
    """
    _expect_classes("targeted_dlr", logits, 4)
    largest = logits.topk(4, dim=1).values
    ahead = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    return ahead / _positive(largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2)


def _positive(gap: Tensor) -> Tensor:
    return torch.where(gap > 0, gap, 1)


def _expect_classes(name: str, logits: Tensor, minimum: int) -> None:
    if logits.shape[1] < minimum:
        raise ConfigError(
            f"{name} got {logits.shape[1]} classes; expected at least {minimum}, which it compares; use "
            f"{'targeted_margin' if 'targeted' in name else 'margin'} or cross-entropy instead"
        )


@identified("PerStep")
@dataclass(frozen=True)
class PerStep:
    """The mean over time steps of `loss` at each.  (outputs [T, B, K], y [B]) -> [B]

    For attacks on a network's outputs over time (OnTraces): every step contributes to the gradient.
    """

    loss: Loss

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.dim() != 3:
            raise ConfigError(
                f"PerStep got scores of shape {tuple(outputs.shape)}; expected outputs over time [T, B, K]; wrap "
                "the attack in OnTraces, or use the plain loss on logits"
            )
        return torch.stack([self.loss(output, y) for output in outputs]).mean(0)


@dataclass(frozen=True, eq=False)
class WithTarget:
    """A targeted loss with the target of each sample, called like any other loss: (logits, y) -> [B]."""

    loss: TargetedLoss
    target: Tensor  # [B]

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.loss(logits, y, self.target)
