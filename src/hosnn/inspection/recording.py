"""What every spiking layer of a network does in one forward pass, with offset currents if asked for.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.nn.hooked import forward_with_hooks
from hosnn.nn.modes import device_of
from hosnn.nn.neurons import LIF, TALIF, neurons
from hosnn.rng import SampleRandom
from hosnn.signature import Signature
from hosnn.spiking.kernels import backend
from hosnn.spiking.state import Trajectory


class LayerRecord(NamedTuple):
    """A layer's currents [T, B, *N], its run on them, and its membrane with k = 0 (None: it does not adapt)."""

    currents: Tensor
    trajectory: Trajectory
    alone: Tensor | None


Records = Mapping[str, LayerRecord]


@dataclass(frozen=True)
class Offset:
    """A constant current of random sign added to every hidden neuron, the same for all images and steps.

    size  of the current, potential per step
    """

    size: float
    seed: int = 0

    def currents(self, name: str, neurons: torch.Size, like: Tensor) -> Tensor:
        """The offsets of the layer `name`, [*N]."""
        draw = SampleRandom(self.seed, torch.zeros(1, dtype=torch.int64)).fold("offset", name)
        return self.size * draw.sign(torch.empty(1, *neurons)).view(neurons).to(like)


@torch.no_grad()
def record(model: nn.Module, x: Tensor, offset: Offset | None = None) -> tuple[Tensor, dict[str, LayerRecord]]:
    """The logits of images x [B, ...], and a record of every spiking layer by module path.

    Raises ConfigError for a layer that ran several times or not at all, ShapeError for images the model does not take.
    """
    layers, records = neurons(model), dict[str, LayerRecord]()

    def hook_for(name: str) -> Any:
        def hook(layer: LIF, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            if name in records:
                raise ConfigError(f"the spiking layer {name!r} ran more than once in a forward pass, expected once")
            currents = arguments[0]
            if offset is not None and not layer.fixed_threshold:
                currents = currents + offset.currents(name, currents.shape[2:], currents)
            alone = backend.membranes(currents, layer.dynamics) if isinstance(layer, TALIF) else None
            records[name] = LayerRecord(currents, layer.trajectory(currents), alone)
            return currents, *arguments[1:]

        return hook

    logits = forward_with_hooks(model, x, layers, hook_for)
    if missing := [name for name in layers if name not in records]:
        raise ConfigError(f"the spiking layers {missing} did not run in a forward pass; remove them or use them")
    return logits, {name: records[name] for name in layers}


def signatures_over(model: nn.Module, steps: int, signature: Signature | None = None) -> Mapping[str, Tensor]:
    """The signature of every layer over `steps` time steps [T, *N], by module path: its own, else that of `signature`.

    Raises ConfigError if `signature` has another number of steps.
    """
    signatures = {}
    for name, layer in neurons(model).items():
        if signature is not None and name in signature.layers and not isinstance(layer, TALIF):
            if signature.steps != steps:
                raise ConfigError(f"inspect got a signature of {signature.steps} steps for a network that runs {steps}")
            signatures[name] = signature.layers[name].mean.to(device_of(model), torch.float32)
        if isinstance(layer, TALIF):
            threshold = layer.threshold_over(steps)
            assert threshold is not None
            signatures[name] = threshold[0].detach()
    return signatures
