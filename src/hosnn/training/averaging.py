"""The exponential moving average of a network's weights, validated and saved where a recipe sets `optim.average`."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hosnn.nn.layers import SpikingNetwork

BESIDE = "weights."
"""Prefix of the weights themselves in the training state of a checkpoint, whose weights are the averaged ones."""


class Averaged:
    """w' <- decay w' + (1 - decay) w after every step, beginning with w after the first; buffers are copied.

    network  the one with the averaged weights
    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, network: SpikingNetwork, decay: float) -> None:
        moving = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own omission
        self._averaged = AveragedModel(network, multi_avg_fn=moving)
        self.network = cast(SpikingNetwork, self._averaged.module)

    def update(self, network: nn.Module) -> None:
        self._averaged.update_parameters(network)

    def restore(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Resume from a checkpoint that filled both networks with averaged weights: `network` gets its own back."""
        own = {name.removeprefix(BESIDE): tensor for name, tensor in state.items() if name.startswith(BESIDE)}
        network.load_state_dict(own)
        self._averaged.n_averaged.fill_(1)  # not the first update any more


def weights_beside(network: nn.Module) -> dict[str, Tensor]:
    """The network's own weights, for the training state."""
    return {BESIDE + name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
