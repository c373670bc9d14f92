"""Small spiking networks of every kind that an estimator must cope with, in float64; not to be changed in place.

Shapes: x [B, 1, 3, 4].
"""

from functools import cache

import torch
from torch import Tensor, nn

from hosnn.nn.layers import ConstantCoding, MeanReadout, OverTime
from hosnn.nn.neurons import LIF, Emit
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.state import Dynamics, Reset

STEPS = 5


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(count: int = 6) -> Tensor:
    return torch.arange(count) % 3


@cache
def plain(reset: Reset = Reset.HARD, emit: Emit = Emit.TRACE) -> nn.Sequential:
    """Two hidden spiking layers, one of them convolutional, and a linear readout; every layer fires."""
    torch.manual_seed(1)
    network = nn.Sequential(
        ConstantCoding(STEPS),
        OverTime(nn.Conv2d(1, 4, 3, padding=1, bias=False)),
        LIF(Dynamics(reset=reset), emit=emit),
        OverTime(nn.Flatten(), nn.Linear(48, 20, bias=False)),
        LIF(Dynamics(reset=reset), emit=emit),
        OverTime(nn.Linear(20, 3, bias=False)),
        MeanReadout(),
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(12)
    return network.double().eval()


@cache
def adaptive(reset: Reset = Reset.HARD, emit: Emit = Emit.TRACE) -> nn.Sequential:
    """The same weights with thresholds that adapt."""
    network = plain(reset, emit)
    return homeostatic(network, calibrate(network, [images(8, seed=9)]), 0.2).double()


class Scores(nn.Module):
    """Two classes, scores (0, mean of the pixels - 0.5); owns a spiking layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LIF()

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1) - 0.5
        return torch.stack([torch.zeros_like(mean), mean], 1)
