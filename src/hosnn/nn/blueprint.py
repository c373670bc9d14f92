"""Blueprints, frozen values that build networks, and the parts common to all of them."""

import math
from typing import Protocol

import torch
from torch import nn

from hosnn.errors import ConfigError
from hosnn.nn.encoder import DeadZone
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, SpikingNetwork, WeightedReadout
from hosnn.spiking.state import Dynamics


class Blueprint(Protocol):
    """A frozen dataclass of numbers, text and such dataclasses; checkpoints store it and build the network from it."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width of the input."""

    @property
    def classes(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def title(self) -> str:
        """A short name for tables."""

    def build(self) -> SpikingNetwork: ...


class StandardBlueprint(Blueprint, Protocol):
    """A blueprint with the settings that `check_blueprint` and `assemble` use."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def dropout(self) -> float: ...

    @property
    def weight_scale(self) -> float: ...

    @property
    def dynamics(self) -> Dynamics: ...


MAX_STEPS = 100_000
"""Time steps of a network; for more, step it (`hosnn.stream`)."""


def check_blueprint(blueprint: StandardBlueprint) -> None:
    """Raises ConfigError for an image shape, number of steps, dropout or scale of weights that cannot be built."""
    name, image = type(blueprint).__name__, blueprint.image
    if len(image) != 3 or min(*image, blueprint.steps) < 1 or blueprint.steps > MAX_STEPS:
        raise ConfigError(
            f"{name} got image {image} and steps {blueprint.steps}; expected channels, height and width, at least "
            f"1 of each, and 1 to {MAX_STEPS:,} steps"
        )
    if len(blueprint.mean) != image[0] or len(blueprint.std) != image[0]:
        raise ConfigError(
            f"{name} got {len(blueprint.mean)} means and {len(blueprint.std)} stds for {image[0]} channels; give one "
            "each"
        )
    if not all(map(math.isfinite, blueprint.mean)) or not all(0 < std < math.inf for std in blueprint.std):
        raise ConfigError(
            f"{name} got means {blueprint.mean} and stds {blueprint.std}; expected finite numbers, stds above 0"
        )
    if not 0 <= blueprint.dropout < 1 or not 0 < blueprint.weight_scale < float("inf"):
        raise ConfigError(
            f"{name} got dropout {blueprint.dropout} and weight_scale {blueprint.weight_scale}; expected a probability "
            "in [0, 1) and a positive number"
        )


def assemble(
    blueprint: StandardBlueprint,
    body: nn.Module,
    encoder: nn.Module | None = None,
    once: bool = False,
    dead_zone: float = 0.0,
    learned_readout: bool = False,
) -> SpikingNetwork:
    """The network with this body, its weights scaled so that every layer fires before training.

    encoder  layers that run on the image once (`AnalogueEncoder`)
    once     the body runs on the image once, too, as an ANN twin does
    dead_zone  the level of a `DeadZone` before everything else; 0: none
    learned_readout  each time step counts in the logits by a learned weight (`WeightedReadout`)

    All weights of the body are `weight_scale` times torch's initial ones, whose standard deviation 1/sqrt(3 inputs)
    would leave neurons with threshold 1 silent after a few layers.
    """
    for module in body.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                module.weight.mul_(blueprint.weight_scale)
    normalise: nn.Module = Normalise(blueprint.mean, blueprint.std)
    if dead_zone:
        normalise = nn.Sequential(DeadZone(dead_zone), normalise)
    coding = ConstantCoding(1, 1.0) if once else ConstantCoding(blueprint.steps, blueprint.dynamics.tau_synapse)
    readout = WeightedReadout(coding.steps) if learned_readout else MeanReadout()
    return SpikingNetwork(normalise, coding, body, readout, blueprint, encoder)
