"""What a network does with an image once, before it is encoded over time.

Shapes: B batch, T time steps, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.fusion import ObservedSequential


@identified("DeadZone")
class DeadZone(nn.Module):
    """max(x - level, 0): pixels up to `level` become black, brighter ones lose as much.

    Where most pixels of clean images are exactly 0, as in Fashion-MNIST, a perturbation of at most `level` cannot reach
    them.  The gradient of those pixels is 0 because they have no influence; a gradient passed straight through gains an
    attacker nothing there, since the largest move it may make stays inside the dead zone.
    level    in units of pixels, 0 to 1
    forward  raw pixels [..., C, H, W] -> [..., C, H, W]
    """

    def __init__(self, level: float) -> None:
        super().__init__()
        if not 0 <= level < 1:
            raise ConfigError(f"DeadZone got level = {level!r}; expected a part of the pixel range, e.g. 10/255")
        self.level = level

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.relu(pixels - self.level)

    def extra_repr(self) -> str:
        return f"{self.level:g}"


@identified("AnalogueEncoder")
class AnalogueEncoder(ObservedSequential):
    """The first layers of a network as an ordinary one: convolution, normalisation, rectifier and pooling, run on the
    image once; spikes begin at the layer after them.

    Each layer in it takes [T, B, ...], as in a `Body`, with T = 1 for images.
    forward  images [B, C, H, W] or frames [B, T, C, H, W] -> feature maps with as many dimensions
    """

    def forward(self, images: Tensor) -> Tensor:
        if images.dim() == 5:
            return self._over_layers(images.transpose(0, 1)).transpose(0, 1)
        # Channels last: on a CPU torch then pools several times faster.
        return self._over_layers(images.contiguous(memory_format=torch.channels_last)[None])[0]

    def _over_layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x
