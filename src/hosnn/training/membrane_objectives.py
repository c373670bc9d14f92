"""An adversarial objective on the membranes of the clean and the perturbed image: MPPD.

Shapes: T time, B batch, *N neurons; images [B, C, H, W], labels y [B], losses [B].
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import LIF, neurons
from hosnn.training.objectives import Adversarial, CrossEntropy
from hosnn.training.paired_objectives import check_positive


@identified("PerturbedMembranes")
@dataclass(frozen=True)
class PerturbedMembranes(Adversarial):
    """Cross-entropy on x and on x', and a penalty on how far the perturbation moves the last spiking layer's membrane:

        (loss(x) + loss(x'))/2 + weight · mean over t and neurons of |d[t]|^power
        d[t] = (1 - 1/τ_m) d[t-1] + I'[t] - I[t]

    I are the layer's currents for x, which take no gradient, I' those for x'.  d leaves resets out ("membrane potential
    perturbation dynamics", MPPD).
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
        layers = list(neurons(network).values())
        if not layers:
            raise ConfigError(
                f"PerturbedMembranes got a {type(network).__name__} without spiking layers; choose another objective"
            )
        clean_logits, clean = _with_currents(network, layers[-1], x)
        logits, currents = _with_currents(network, layers[-1], perturbed)
        change = currents - clean.detach()
        decay, moved, penalty = layers[-1].dynamics.membrane_decay, change[0], change.new_zeros(())
        for step, difference in enumerate(change):
            moved = difference if step == 0 else decay * moved + difference
            size = moved.abs() if self.power == 1 else moved.square()
            penalty = penalty + size.flatten(1).mean(1)
        both = (self.loss.of_logits(clean_logits, y) + self.loss.of_logits(logits, y)) / 2
        return both + self.weight * penalty / len(change)


def _with_currents(network: nn.Module, layer: LIF, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and the currents [T, B, *N] that the spiking layer receives."""
    received: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: received.append(arguments[0]))
    try:
        logits = network(x)
    finally:
        handle.remove()
    return logits, received[-1]
