"""Networks that spike by layers and functions which are not hosnn's, in each way that other libraries do."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.checks.planted import CLASSES, SIDE

STEPS = 3


class Step(torch.autograd.Function):
    """1 above 0, with the derivative of a sigmoid."""

    @staticmethod
    def forward(context: Any, membrane: Tensor) -> Tensor:
        context.save_for_backward(membrane)
        return (membrane > 0).to(membrane.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        membrane: Tensor = context.saved_tensors[0]
        soft = (4 * membrane).sigmoid()
        return gradients[0] * 4 * soft * (1 - soft)


class Count(Step):
    """How many thresholds fit into the membrane, as sinabs' MultiSpike."""

    @staticmethod
    def forward(context: Any, membrane: Tensor) -> Tensor:
        context.save_for_backward(membrane)
        return (membrane > 0) * membrane.div(0.25, rounding_mode="trunc")


def step(membrane: Tensor) -> Tensor:
    return Step.apply(membrane)  # type: ignore[no-any-return, no-untyped-call]


def count(membrane: Tensor) -> Tensor:
    return Count.apply(membrane)  # type: ignore[no-any-return, no-untyped-call]


class Network(nn.Module):
    """Two linear layers with leaky neurons between them, whose spikes `spikes` computes from membrane - 0.5."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(SIDE * SIDE, 32, generator=rng) / 4)
        self.last = nn.Parameter(torch.randn(32, CLASSES, generator=rng))
        self.threshold = threshold

    def spikes(self, membrane: Tensor) -> Tensor:
        return step(membrane)

    def forward(self, x: Tensor) -> Tensor:
        current = x.flatten(1) @ self.first
        membrane, logits = torch.zeros_like(current), torch.zeros(len(x), CLASSES)
        for _ in range(STEPS):
            membrane = 0.5 * membrane + current
            spikes = self.spikes(membrane - self.threshold)
            membrane = membrane * (1 - spikes.clamp(max=1))
            logits = logits + spikes @ self.last
        return logits / STEPS


class Neuron(nn.Module):
    """A layer that emits `factor` times what `function` gives, as snnTorch's graded spikes."""

    def __init__(self, function: Any = step, factor: float | Tensor = 1.0) -> None:
        super().__init__()
        self.function, self.factor = function, factor

    def forward(self, membrane: Tensor) -> Tensor:
        return self.function(membrane) * self.factor  # type: ignore[no-any-return]


class WithLayer(Network):
    """The same with the spikes in a module."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def spikes(self, membrane: Tensor) -> Tensor:
        return self.layer(membrane=membrane)  # type: ignore[no-any-return]


class StraightThrough(Network):
    def spikes(self, membrane: Tensor) -> Tensor:
        soft = (4 * membrane).sigmoid()
        return soft + (torch.where(membrane > 0, 1.0, 0.0) - soft).detach()


class Comparing(Network):
    """No derivative at all, as in libraries that leave out the surrogate in eval mode."""

    def spikes(self, membrane: Tensor) -> Tensor:
        return (membrane >= 0).to(membrane)


class Writing(Network):
    def spikes(self, membrane: Tensor) -> Tensor:
        spikes = torch.zeros_like(membrane)
        spikes[(membrane > 0) & (membrane < 9)] = 1.0
        return spikes


class Choosing(Network):
    def spikes(self, membrane: Tensor) -> Tensor:
        return torch.where(membrane > 0, torch.ones_like(membrane), torch.zeros_like(membrane))


class Heaviside(Network):
    def spikes(self, membrane: Tensor) -> Tensor:
        return torch.heaviside(membrane, torch.tensor(0.0))


class Stateful(nn.Module):
    """Its membrane stays between calls, and is dropped when another number of images comes, as in snnTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane = torch.zeros(0)

    def reset_mem(self) -> None:
        self.membrane = torch.zeros(0)

    def forward(self, membrane: Tensor) -> Tensor:
        before = self.membrane if self.membrane.shape == membrane.shape else torch.zeros_like(membrane)
        self.membrane = (0.9 * before + membrane).detach()
        return step(membrane + 0.9 * before)
