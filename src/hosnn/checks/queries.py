"""Asking a model without a trace: scores and gradients by blocks, what happens inside, modes and random numbers.

Shapes: x [n, ...], logits [n, K].
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hosnn.nn.modes import evaluating
from hosnn.robustness.losses import Loss
from hosnn.robustness.model import Model, NoGradient, count_passes, input_gradient, scores
from hosnn.runtime import own_randomness, seed_everything

BLOCK = 50
LARGE = 1e-2
"""A change of logits, relative to their spread, that is no rounding."""


@contextmanager
def unnoticed(model: Callable[..., object]) -> Iterator[None]:
    """The model in eval mode; modes, random numbers and counts of passes as they were afterwards."""
    with evaluating(model), own_randomness(), count_passes():
        yield


def scores_of(model: Model, x: Tensor, block: int = BLOCK) -> Tensor:
    return torch.cat([scores(model, part) for part in torch.split(x, block)])


def seeded_scores(model: Model, x: Tensor, seed: int, block: int = BLOCK) -> Tensor:
    seed_everything(seed)
    return scores_of(model, x, block)


def gradient_of(model: Model, x: Tensor, y: Tensor, loss: Loss) -> Tensor | None:
    """Gradient of each image's loss, [n, ...]; None if there is none."""
    try:
        blocks = zip(torch.split(x, BLOCK), torch.split(y, BLOCK), strict=True)
        return torch.cat([input_gradient(model, *block, loss).gradient for block in blocks])
    except NoGradient:
        return None


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference of logits over their spread."""
    return float((first - second).abs().max() / first.float().std().clamp(min=torch.finfo(torch.float32).tiny))


def far(first: Tensor, second: Tensor, spread: Tensor) -> Tensor:
    return (first - second).abs().amax(1) > LARGE * spread.float().std()


def share(which: Tensor) -> float:
    return float(which.float().mean())


def first_input(model: nn.Module, x: Tensor) -> Tensor | None:
    """What the first layer with weights is given."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[object, ...]) -> None:
        if not seen and arguments and isinstance(arguments[0], Tensor):
            seen.append(arguments[0].detach().clone())

    leaves = [
        module for module in model.modules() if not any(module.children()) and any(True for _ in module.parameters())
    ]
    handles = [module.register_forward_pre_hook(keep) for module in leaves]
    try:
        scores_of(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None


def fires(model: nn.Module, x: Tensor) -> bool:
    """Whether a module inside turns what is not binary into float zeros and ones, both of them."""
    fired: list[bool] = []

    def watch(module: nn.Module, arguments: tuple[object, ...], outputs: object) -> None:
        given = [value for value in arguments if isinstance(value, Tensor)]
        made = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        fired.append(any(_binary(value) for value in made) and not any(_binary(value) for value in given))

    handles = [module.register_forward_hook(watch) for module in model.modules() if module is not model]
    try:
        scores_of(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return any(fired)


def _binary(value: object) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    ones = value == 1
    return bool(ones.any()) and not bool(ones.all()) and bool((ones | (value == 0)).all())
