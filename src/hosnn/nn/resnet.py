"""Residual networks of spiking neurons: a block adds the currents of its shortcut before its last neurons fire."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.blueprint import assemble, check_blueprint
from hosnn.nn.body import Body
from hosnn.nn.convnet import CIFAR10_MEAN, CIFAR10_STD
from hosnn.nn.fusion import Planned, accepts_context, any_global_hooks
from hosnn.nn.layers import OverTime, SpikingNetwork, TimeDropout
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import Norm, normalisations
from hosnn.spiking.gradient_rule import GradientRule, bptt
from hosnn.spiking.kernels.kernel_spec import FusionContext
from hosnn.spiking.state import Dynamics


@identified("Residual")
class Residual(Planned[FusionContext | None]):
    """neurons(main(x) + shortcut(x)): traces [T, B, C, H, W] -> [T, B, C', H', W'].

    Only the neurons read the sum, so that its memory can be reused.
    """

    def __init__(self, main: Body, shortcut: Body, neurons: LIF) -> None:
        super().__init__()
        self.main, self.shortcut, self.neurons = main, shortcut, neurons

    def forward(self, x: Tensor) -> Tensor:
        currents, context = self.main(x) + self.shortcut(x), self.plan()
        return self.neurons(currents) if context is None else self.neurons(currents, context)  # type: ignore[no-any-return]

    def _make_plan(self) -> FusionContext | None:
        reusable = self.fused and accepts_context(self.neurons) and not any_global_hooks()
        return FusionContext(input_reusable=True) if reusable else None


@identified("ResNet")
@dataclass(frozen=True)
class ResNet:
    """A residual network for small images: one 3 x 3 convolution, stages of basic blocks, the mean over space, dense.

    blocks       how many in each stage; a stage after the first halves height and width and doubles the channels
    width        channels of the first stage
    image        channels, height, width of the input
    mean, std    per channel, of raw pixels in [0, 1]
    norm         normalisation of currents over time, after every convolution
    dropout      before the dense layer
    spiking_output  the last layer is LIF and logits are its mean trace; False: logits are the mean current
    weight_scale    factor of torch's initial weights, so that all layers fire before training
    No biases.  Raises ConfigError for sizes that cannot be built.
    Source: He et al. 2016, with neurons in place of ReLU, as in Zheng et al. 2021 (tdBN).
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    classes: int = 10
    image: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    steps: int = 5
    norm: Norm = Norm.SHARED
    dropout: float = 0.0
    weight_scale: float = 10.0
    dynamics: Dynamics = Dynamics()  # noqa: RUF009  (a frozen value)
    rule: GradientRule = bptt()  # noqa: RUF009
    spiking_output: bool = False

    def __post_init__(self) -> None:
        check_blueprint(self)
        if not self.blocks or min(*self.blocks, self.width, self.classes) < 1:
            raise ConfigError(
                f"ResNet got blocks {self.blocks}, width {self.width}, classes {self.classes}; expected at least one "
                "stage, and at least 1 block in each, channel and class, e.g. blocks (2, 2, 2, 2), width 64"
            )

    @property
    def title(self) -> str:
        """By the number of layers with weights, shortcuts aside, e.g. ResNet-18."""
        return f"ResNet-{2 * sum(self.blocks) + 2}" + (f" of width {self.width}" if self.width != 64 else "")

    def build(self) -> SpikingNetwork:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            (*self._convolution("0", self.image[0], self.width), ("neurons0", self._neurons()))
        )
        channels = self.width
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers[f"stage{stage + 1}_{block + 1}"] = self._block(channels, self.width * 2**stage, stride)
                channels = self.width * 2**stage
        layers["dropout"] = TimeDropout(self.dropout)
        layers["dense"] = OverTime(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, self.classes, bias=False))
        if self.spiking_output:
            layers["neurons"] = self._neurons(fixed_threshold=True)
        return assemble(self, Body(layers))

    def _block(self, inputs: int, outputs: int, stride: int) -> Residual:
        main = (
            *self._convolution("1", inputs, outputs, stride=stride),
            ("neurons1", self._neurons()),
            *self._convolution("2", outputs, outputs),
        )
        same = inputs == outputs and stride == 1
        shortcut = () if same else self._convolution("", inputs, outputs, size=1, stride=stride)
        return Residual(Body(OrderedDict(main)), Body(OrderedDict(shortcut)), self._neurons())

    def _convolution(
        self, number: str, inputs: int, outputs: int, size: int = 3, stride: int = 1
    ) -> list[tuple[str, nn.Module]]:
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        norms = normalisations(self.norm, outputs, self.steps)
        return [(f"conv{number}", OverTime(convolution)), *((f"norm{number}", norm) for norm in norms)]

    def _neurons(self, fixed_threshold: bool = False) -> LIF:
        return LIF(self.dynamics, self.rule, fixed_threshold=fixed_threshold)


def resnet18(classes: int = 10) -> ResNet:
    """ResNet-18 for images of 32 x 32: 11 M weights."""
    return ResNet(classes=classes)
