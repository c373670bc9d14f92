"""Adversarial objectives on membranes: how far the perturbation moves them (MPPD), how near thresholds they are.

Shapes: T time, B batch, *N neurons; images [B, C, H, W], labels y [B], losses [B].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import LIF, neurons
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.surrogate import Rectangle, StraightThrough
from hosnn.training.objectives import Adversarial, CrossEntropy
from hosnn.training.paired_objectives import check_positive

FLAT = (Rectangle, StraightThrough)
"""Surrogates h that have no derivative of their own."""


@identified("PerturbedMembranes")
@dataclass(frozen=True)
class PerturbedMembranes(Adversarial):
    """Cross-entropy on x and on x', and a penalty on how far the perturbation moves the last spiking layer's membrane:

        (loss(x) + loss(x'))/2 + weight · mean over t and neurons of |d[t]|^power
        d[t] = (1 - 1/τ_m) d[t-1] + I'[t] - I[t]

    I are the layer's currents for x, which take no gradient, I' those for x', in units of its resting threshold.  d
    leaves resets out ("membrane potential perturbation dynamics", MPPD).
    weight  the authors' code: 1
    power   2, as in MPPD (Ding et al. 2024, "Robust stable spiking neural networks", ICML); 1, as in MPPD-TV-l1 (Lai
            et al. 2026, "A unified total variation framework for membrane potential perturbation dynamic", ICLR)
    The authors' neurons also scale their currents by a learned factor per time step, which is left out here.
    Running statistics of BatchNorm are updated by both x and x'.
    Raises ConfigError for a network without spiking layers of hosnn.
    """

    loss: CrossEntropy
    weight: float = 1.0
    power: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "weight")
        if self.power not in (1, 2) or not isinstance(self.loss, CrossEntropy):
            raise ConfigError(
                f"PerturbedMembranes got power = {self.power!r} and the loss {self.loss}; expected 1 or 2, and "
                "CrossEntropy"
            )

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        last = _spiking_layers(self, network)[-1]
        clean_logits, (clean,) = _with_currents(network, [last], x)
        logits, (currents,) = _with_currents(network, [last], perturbed)
        change = (currents - clean.detach()) / last.dynamics.threshold
        decay, moved, penalty = last.dynamics.membrane_decay, change[0], change.new_zeros(())
        for step, difference in enumerate(change):
            moved = difference if step == 0 else decay * moved + difference
            size = moved.abs() if self.power == 1 else moved.square()
            penalty = penalty + size.flatten(1).mean(1)
        both = (self.loss.of_logits(clean_logits, y) + self.loss.of_logits(logits, y)) / 2
        return both + self.weight * penalty / len(change)


@identified("NearThreshold")
@dataclass(frozen=True)
class NearThreshold(Adversarial):
    """Adversarial training with a penalty on membranes near their thresholds, where a small change of the input is
    passed on:

        loss(x') + weight · mean over layers, t and neurons of h((u[t] - θ[t])/θ[0])

    h is the derivative of the layer's surrogate: the factor by which each neuron multiplies a gradient.  The layers are
    the hidden spiking ones.
    After MPD-SGR (Jiang et al. 2026, "Robust spiking neural networks with membrane potential distribution-driven
    surrogate gradient regularization", AAAI), which lowers the share of membranes in the surrogate's range; its own
    expression for that share, and its weight, are not reproduced.
    Membranes are computed step by step beside the network's own pass, so that it is slower than other objectives.
    Raises ConfigError for a network without spiking layers of hosnn, or with a gradient rule that has no surrogate.
    """

    loss: CrossEntropy
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "weight")
        if not isinstance(self.loss, CrossEntropy):
            raise ConfigError(f"NearThreshold got the loss {self.loss}; expected CrossEntropy")

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        layers = _spiking_layers(self, network)
        layers = [layer for layer in layers if not layer.fixed_threshold] or layers
        logits, currents = _with_currents(network, layers, perturbed)
        shares = [_near_threshold(layer, received) for layer, received in zip(layers, currents, strict=True)]
        return self.loss.of_logits(logits, y) + self.weight * torch.stack(shares).mean(0)


def _near_threshold(layer: LIF, currents: Tensor) -> Tensor:
    """The mean over time steps and neurons of the surrogate's derivative at the membrane  [B]."""
    rule = layer.rule
    if not isinstance(rule, GradientRule):
        raise ConfigError(
            f"NearThreshold got neurons with the gradient rule {rule}, which has no surrogate; train through another, "
            "e.g. bptt()"
        )
    if isinstance(rule.surrogate, FLAT):
        raise ConfigError(
            f"NearThreshold got neurons with the surrogate {rule.surrogate}, which is constant in pieces, so that the "
            "penalty has no gradient; train through another, e.g. bptt(Sigmoid(0.2))"
        )
    membrane, threshold, _, _ = layer.trajectory(currents)
    distance = (membrane - threshold) / layer.dynamics.threshold
    derivatives = torch.stack([rule.surrogate.derivative(x) for x in distance.unbind(0)])
    return derivatives.flatten(2).mean((0, 2))


def _spiking_layers(objective: Adversarial, network: nn.Module) -> list[LIF]:
    layers = list(neurons(network).values())
    if not layers:
        raise ConfigError(
            f"{type(objective).__name__} got a {type(network).__name__} without spiking layers; choose another "
            "objective"
        )
    return layers


def _with_currents(network: nn.Module, layers: Sequence[LIF], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits, and the currents [T, B, *N] that each of the spiking layers receives."""
    received: dict[LIF, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda module, arguments: received.__setitem__(module, arguments[0]))
        for layer in layers
    ]
    try:
        logits = network(x)
    finally:
        for handle in handles:
            handle.remove()
    return logits, [received[layer] for layer in layers]
