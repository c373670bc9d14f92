"""Small convolutional networks: 15C5-P2-40C5-P2-300-10 (HoSNN, MNIST) and 32C5-P2-64C5-P2-1024-10 (TSSL-BP)."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.blueprint import assemble, check_blueprint
from hosnn.nn.body import Body
from hosnn.nn.layers import OverTime, SpikingNetwork, SumPool, TimeDropout
from hosnn.nn.neurons import LIF
from hosnn.spiking.gradient_rule import GradientRule, tssl_bp
from hosnn.spiking.state import Dynamics


@identified("LeNet")
@dataclass(frozen=True)
class LeNet:
    """Conv5-pool-conv5-pool-dense-dense; `build()` gives the network.

    image        channels, height, width of the input
    mean, std    per channel, of raw pixels in [0, 1]
    spiking_output  the last layer is LIF and logits are its mean trace; False: logits are the mean current
    No biases, as in the authors' code.  Raises ConfigError for sizes that cannot be built.
    """

    channels: tuple[int, int] = (15, 40)
    hidden: int = 300
    classes: int = 10
    padding: int = 0
    image: tuple[int, int, int] = (1, 28, 28)
    mean: tuple[float, ...] = (0.2860,)
    std: tuple[float, ...] = (0.3530,)
    steps: int = 5
    dropout: float = 0.2
    dynamics: Dynamics = Dynamics()  # noqa: RUF009  (a frozen value)
    rule: GradientRule = tssl_bp()  # noqa: RUF009
    spiking_output: bool = True

    def __post_init__(self) -> None:
        check_blueprint(self)
        counts = (*self.channels, self.hidden, self.classes, *self._sides)
        if len(self.channels) != 2 or min(counts) < 1 or self.padding < 0:
            raise ConfigError(
                f"LeNet got channels {self.channels}, hidden {self.hidden}, classes {self.classes}, padding "
                f"{self.padding}, image {self.image}; expected two numbers of channels, sizes of at least 1, and an "
                "image large enough for two 5x5 convolutions and poolings (padding 2 keeps small images whole)"
            )

    @property
    def _sides(self) -> tuple[int, ...]:
        """Height and width after both convolutions and poolings."""
        return tuple(((side + 2 * self.padding - 4) // 2 + 2 * self.padding - 4) // 2 for side in self.image[1:])

    @property
    def title(self) -> str:
        """The field's shorthand, e.g. 15C5-P2-40C5-P2-300-10."""
        first, second = self.channels
        return f"{first}C5-P2-{second}C5-P2-{self.hidden}-{self.classes}"

    @property
    def weight_scale(self) -> float:
        """Weights stay torch's initial ones."""
        return 1.0

    def build(self) -> SpikingNetwork:
        first, second = self.channels
        height, width = self._sides

        def neurons(fixed_threshold: bool = False) -> LIF:
            return LIF(self.dynamics, self.rule, fixed_threshold=fixed_threshold)

        def convolution(inputs: int, outputs: int) -> OverTime:
            return OverTime(nn.Conv2d(inputs, outputs, 5, padding=self.padding, bias=False))

        body = Body(
            OrderedDict(
                conv1=convolution(self.image[0], first),
                neurons1=neurons(),
                pool1=OverTime(SumPool(2)),
                conv2=convolution(first, second),
                neurons2=neurons(),
                pool2=OverTime(SumPool(2), nn.Flatten()),
                dropout2=TimeDropout(self.dropout),
                dense3=OverTime(nn.Linear(second * height * width, self.hidden, bias=False)),
                neurons3=neurons(),
                dropout3=TimeDropout(self.dropout),
                dense4=OverTime(nn.Linear(self.hidden, self.classes, bias=False)),
            )
        )
        if self.spiking_output:
            body.add_module("neurons4", neurons(fixed_threshold=True))
        return assemble(self, body)


def lenet_15c5_40c5_300() -> LeNet:
    """15C5-P2-40C5-P2-300-10, no padding: the HoSNN authors' MNIST network."""
    return LeNet()


def lenet_32c5_64c5_1024() -> LeNet:
    """32C5-P2-64C5-P2-1024-10, padding 2: TSSL-BP's Fashion-MNIST network."""
    return LeNet(channels=(32, 64), hidden=1024, padding=2)
