"""Conversion of an ordinary network (ANN) with rectifiers into a spiking one, without training.

Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.hooked import forward_with_hooks
from hosnn.nn.layers import OverTime, SpikingNetwork
from hosnn.nn.modes import device_of, evaluating
from hosnn.nn.normalisation import Norm, TimeBatchNorm
from hosnn.spiking.state import Dynamics, Reset

SAMPLED = 200_000
"""Activations of a layer that are kept from each batch, at random, to find its percentile."""

INTEGRATE_AND_FIRE = Dynamics(tau_membrane=math.inf, tau_synapse=1.0, reset=Reset.SOFT)


def ann_to_snn(ann: SpikingNetwork, batches: Iterable[Tensor], steps: int, percentile: float = 99.9) -> SpikingNetwork:
    """The spiking form of an ANN twin, whose rates over `steps` time steps stand for the rectifiers' outputs.

    Neurons integrate and fire (no leak, soft reset).  With λ the given percentile of a layer's activations and λ' that
    of the layer before (1 of the input), its currents become, for spikes s' of the layer before,

        I[t] = (W λ' s'[t] + b) / λ + 1 / (2 steps)

    so that an activation of λ becomes a spike at every step, and a neuron rounds instead of rounding down.
    The more steps, the closer the spiking network comes to the ANN: convert again for another number of steps.

    ann      a `ConvNet` with `twin=Twin.RELU`, trained
    batches  images [B, C, H, W] in [0, 1] of the training split; a few hundred are enough
    returns  a network in eval mode with a blueprint of its own: `save`, `calibrate` and training work as for any other
    Raises ConfigError for another network, no images, or steps or a percentile out of range.
    Source: Rueckauer et al. 2017 (thresholds from percentiles, soft reset); Deng & Gu 2021 (the offset).
    """
    blueprint = ann.blueprint
    if not isinstance(blueprint, ConvNet) or blueprint.twin is not Twin.RELU:
        raise ConfigError(
            f"ann_to_snn got a {type(ann).__name__} built from {type(blueprint).__name__}; expected one whose "
            "blueprint is a ConvNet with twin=Twin.RELU"
        )
    if steps < 1 or not 0 < percentile <= 100:
        raise ConfigError(
            f"ann_to_snn got steps = {steps} and percentile = {percentile}; expected at least 1 step and a percentile "
            "in (0, 100]"
        )
    bias = blueprint.norm is Norm.NONE or not blueprint.norm_dense
    norm = Norm.NONE if blueprint.norm is Norm.NONE else Norm.SHARED
    spiking = replace(
        blueprint,
        twin=Twin.NONE,
        steps=steps,
        norm=norm,
        bias=bias,
        dynamics=INTEGRATE_AND_FIRE,
        spiking_output=False,
    ).build()
    weights = spiking.state_dict()
    zeros = {name: torch.zeros_like(weights[name]) for name in weights.keys() - ann.state_dict().keys()}
    state = ann.state_dict() | zeros
    if blueprint.learned_readout:  # of one step, the twin's
        state["readout.weights"] = state["readout.weights"].expand(steps) / steps
    spiking.load_state_dict(state)
    _set_thresholds(spiking, activation_percentiles(ann, batches, percentile), 0.5 / steps)
    return spiking.eval()


def activation_percentiles(ann: SpikingNetwork, batches: Iterable[Tensor], percentile: float) -> dict[str, float]:
    """The percentile of the outputs of each rectifier in the body, by its name there; 1 for one that is silent."""
    rectifiers = {name: layer for name, layer in ann.body.named_children() if _is_rectifier(layer)}
    kept: dict[str, list[Tensor]] = {name: [] for name in rectifiers}
    random = torch.Generator().manual_seed(0)

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            values = torch.relu(arguments[0]).flatten()
            if len(values) > SAMPLED:  # at random: a stride would take the same few columns of every image
                values = values[torch.randint(len(values), (SAMPLED,), generator=random).to(values.device)]
            kept[name].append(values.cpu())

        return keep

    with evaluating(ann), torch.no_grad():
        for images in batches:
            forward_with_hooks(ann, images.to(device_of(ann, images)), rectifiers, hook_for)
    if not all(kept.values()):
        raise ConfigError("ann_to_snn got no images; give a few hundred of the training split")
    found = {name: _percentile(torch.cat(values), percentile) for name, values in kept.items()}
    return {name: value or 1.0 for name, value in found.items()}


def _percentile(values: Tensor, percentile: float) -> float:
    rank = max(1, math.ceil(percentile / 100 * len(values)))
    return float(values.kthvalue(rank).values)


def _is_rectifier(layer: nn.Module) -> bool:
    return isinstance(layer, OverTime) and len(layer) == 1 and isinstance(layer[0], nn.ReLU)


@torch.no_grad()
def _set_thresholds(network: SpikingNetwork, percentiles: dict[str, float], offset: float) -> None:
    """Scale weights, gains and biases of the body in place, so that every threshold can stay 1."""
    layers, before = dict(network.body.named_children()), 1.0
    for name, layer in layers.items():
        kind, number = name.rstrip("0123456789"), name.lstrip("abcdefghijklmnopqrstuvwxyz")
        if kind not in ("conv", "dense"):
            continue
        assert isinstance(layer, OverTime)
        linear: Any = layer[-1]
        linear.weight.mul_(before)
        percentile = percentiles.get(f"neurons{number}")
        if percentile is None:  # the last layer, whose currents are the logits
            continue
        norm = layers.get(f"norm{number}")
        affine: Any = norm.each[0] if isinstance(norm, TimeBatchNorm) else linear
        affine.weight.div_(percentile)
        affine.bias.div_(percentile).add_(offset)
        before = percentile
