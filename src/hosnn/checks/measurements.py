"""Measurements of a model without side effects: scores and gradients in blocks.

Shapes: x [n, ...], logits [n, K].
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hosnn.nn.modes import evaluating
from hosnn.robustness.losses import Loss
from hosnn.robustness.model import InputGradient, Model, NoGradient, count_passes, input_gradient, scores
from hosnn.runtime import own_randomness, seed_everything

BLOCK = 50
"""Images per forward pass."""

NOTICEABLE = 1e-2
"""A change of logits, relative to their spread, that rounding does not explain."""


@contextmanager
def without_side_effects(model: Callable[..., object]) -> Iterator[None]:
    """The model in eval mode; afterwards modes, random numbers and counts of passes are as they were before."""
    with evaluating(model), own_randomness(), count_passes():
        yield


def scores_in_blocks(model: Model, x: Tensor, block: int = BLOCK) -> Tensor:
    """Logits [n, K], computed on `block` images at a time."""
    return torch.cat([scores(model, part) for part in torch.split(x, block)])


def seeded_scores(model: Model, x: Tensor, seed: int, block: int = BLOCK) -> Tensor:
    """`scores_in_blocks` after seeding all global random numbers."""
    seed_everything(seed)
    return scores_in_blocks(model, x, block)


def input_gradients(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Tensor | None:
    """Gradient of each image's loss with respect to the image, [n, ...]; None if autograd does not reach the input."""
    passes = gradient_passes(model, x, y, loss)
    return None if passes is None else passes.gradient


def gradient_passes(model: Model, x: Tensor, y: Tensor, loss: Loss) -> InputGradient | None:
    """The same with each image's loss and scores in the passes with a gradient."""
    try:
        blocks = zip(torch.split(x, BLOCK), torch.split(y, BLOCK), strict=True)
        passes = [input_gradient(model, *block, loss) for block in blocks]
    except NoGradient:
        return None
    return InputGradient(*map(torch.cat, zip(*passes, strict=True)))


def without_gradient(gradients: Tensor) -> Tensor:
    """Images whose gradient is exactly zero, or not a number.  [n, ...] -> [n] bool"""
    flat = gradients.flatten(1)
    return (flat == 0).all(1) | ~flat.isfinite().all(1)


def relative_difference(first: Tensor, second: Tensor) -> float:
    """Largest difference of logits over the spread of `first`."""
    return float((first - second).abs().max() / first.float().std().clamp(min=torch.finfo(torch.float32).tiny))


def noticeably_different(first: Tensor, second: Tensor, reference: Tensor) -> Tensor:
    """Images whose logits differ by more than rounding, measured by the spread of `reference`.  [n, K] -> [n] bool"""
    return (first - second).abs().amax(1) > NOTICEABLE * reference.float().std()


def fraction(mask: Tensor) -> float:
    """Share of True in a bool tensor."""
    return float(mask.float().mean())
