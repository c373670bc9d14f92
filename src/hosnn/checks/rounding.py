"""Rounding of the input, seen where its effect arrives: at the inputs of the first layers with weights.

Shapes: x [n, ...] in [0, 1].
"""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.checks.measurements import BLOCK, fraction, scores_in_blocks
from hosnn.nn.neurons import LIF
from hosnn.robustness.threats import Threat

LAYERS = 4
"""Layers with weights that are looked at: rounding of the input comes before the features."""

FEWEST_VALUES = 100
"""Fewest values for a share of a later layer's inputs to mean anything."""


def unmoved_inputs(model: nn.Module, x: Tensor, threat: Threat) -> dict[str, Any]:
    """Shares of inputs that are equal for x and for x moved inwards by up to eps/2.

    unmoved_inputs  of the first layer with weights
    unmoved_later   the largest share in the layers after it; without values of zero and a layer's smallest and largest,
                    where activations (ReLU, a clamp) rest in honest networks
    Without such a layer, or with too few values in it, the share is None or missing.
    """
    size = min(threat.ball.eps / 2, 0.25) if threat.ball.name == "linf" else 4 / 255
    if size == 0:
        return {}
    moved = x + size * torch.where(x < 0.5, 1.0, -1.0)
    before, after = (_layer_inputs(model, images[:BLOCK]) for images in (x, moved))
    if not before or len(before) != len(after):
        return {}
    shares = [_unmoved_inside(*pair) for pair in zip(before[1:], after[1:], strict=True)]
    later = max((share for share in shares if share is not None), default=None)
    return {"unmoved_inputs": fraction(before[0] == after[0]), "unmoved_later": later}


def _unmoved_inside(before: Tensor, after: Tensor) -> float | None:
    """Share of equal values, without zeros and extremes."""
    inside = (before != 0) & (before > before.amin()) & (before < before.amax())
    return fraction((before == after)[inside]) if int(inside.sum()) >= FEWEST_VALUES else None


def _layer_inputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Inputs of the first layers with weights, in the order of their calls, up to the first spiking layer's.

    Spikes are a rounding that gradient estimators know; only layers without children and with a tensor as input count.
    """
    inputs: list[Tensor] = []
    spiking: list[nn.Module] = []

    def record(module: nn.Module, arguments: tuple[object, ...]) -> None:
        if spiking or len(inputs) == LAYERS or not arguments or not isinstance(arguments[0], Tensor):
            return
        if arguments[0].is_floating_point() or not inputs:
            inputs.append(arguments[0].detach().clone())
        if isinstance(module, LIF):
            spiking.append(module)

    leaves = [
        module
        for module in model.modules()
        if isinstance(module, LIF) or (not any(module.children()) and any(True for _ in module.parameters()))
    ]
    handles = []
    for module in leaves:
        with suppress(RuntimeError):  # a layer of a torch.jit.ScriptModule takes no hook
            handles.append(module.register_forward_pre_hook(record))
    try:
        scores_in_blocks(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
