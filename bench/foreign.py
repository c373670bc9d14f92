"""Networks for `ingredients.py`, trained when they are first asked for: one of SpikingJelly, one without spikes.

SpikingJelly needs the packages of requirements-speed.txt, in an environment of its own (bench/README.md).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.data import load_dataset

STEPS, TRAINED_ON = 4, 16_000


class SpikingJellyNet(nn.Module):
    """Conv-pool twice and two dense layers with LIF nodes, 4 steps; logits are mean currents."""

    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional as jelly
        from spikingjelly.activation_based import layer, neuron

        def spiking() -> nn.Module:
            return neuron.LIFNode(step_mode="m")  # type: ignore[no-any-return]

        self._forget = jelly.reset_net
        self.body = nn.Sequential(
            *(layer.Conv2d(1, 16, 5, step_mode="m"), spiking(), layer.AvgPool2d(2, step_mode="m")),
            *(layer.Conv2d(16, 32, 5, step_mode="m"), spiking(), layer.AvgPool2d(2, step_mode="m")),
            *(layer.Flatten(step_mode="m"), layer.Linear(512, 128, step_mode="m"), spiking()),
            layer.Linear(128, 10, step_mode="m"),
        )

    def forward(self, x: Tensor) -> Tensor:
        self._forget(self)
        output: Tensor = self.body((4 * x).expand(STEPS, *x.shape)).mean(0)
        return output


def ordinary() -> nn.Sequential:
    """A network without spikes, of about the same size."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def spikingjelly() -> nn.Module:
    """The network of SpikingJelly, trained."""
    return trained(SpikingJellyNet, "spikingjelly")


def ann() -> nn.Module:
    """The network without spikes, trained."""
    return trained(ordinary, "ann")


def trained(build: Callable[[], nn.Module], name: str) -> nn.Module:
    """The network after one pass over `TRAINED_ON` single-step adversarial images at 8/255; kept in runs/foreign."""
    torch.manual_seed(0)
    network, weights = build(), Path("runs/foreign") / f"{name}.pt"
    if weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network
    data, optimiser = load_dataset("fashion-mnist"), torch.optim.Adam(network.parameters(), 2e-3)
    for rows in torch.randperm(len(data.train))[:TRAINED_ON].split(64):
        x, y = data.train.batch(rows)
        at = (x + torch.empty_like(x).uniform_(-8 / 255, 8 / 255)).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(at), y), at)
        moved = at.detach() + 10 / 255 * gradient.sign()
        perturbed = moved.clamp(x - 8 / 255, x + 8 / 255).clamp(0, 1)
        loss = functional.cross_entropy(network(perturbed), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), weights)
    return network
