"""The exponential moving average of a network's weights, validated and saved where a recipe sets `optim.average`."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hosnn.nn.layers import SpikingNetwork
from hosnn.training.weights import check_shapes, check_types

OWN_WEIGHTS = "weights."
"""Prefix of the network's own weights in the training state of a checkpoint, whose network has the averaged ones."""


class WeightAverage:
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

    def restore(self, network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
        """After both networks were loaded with the averaged weights of a checkpoint, give `network` its own back.

        Raises CheckpointError if they are damaged.
        """
        own = {name.removeprefix(OWN_WEIGHTS): tensor for name, tensor in state.items() if name.startswith(OWN_WEIGHTS)}
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        check_shapes(expected, {name: tuple(tensor.shape) for name, tensor in own.items()}, source)
        check_types(network, own, source)
        network.load_state_dict(own)
        self._averaged.n_averaged.fill_(1)  # at 0, the next update would overwrite the average


def own_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's own weights under the names they have in the training state."""
    return {OWN_WEIGHTS + name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
