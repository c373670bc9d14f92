"""What an attack raises: a loss per sample from the model's scores.

Shapes: logits [B, K], labels y [B], loss [B].  Higher means closer to misclassified.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y]."""
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} logits[j] - logits[y]: positive exactly when misclassified (Carlini & Wagner 2017)."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -float("inf"))
    return others.amax(1) - own
