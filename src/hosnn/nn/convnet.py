"""Convolutional networks by their structure in the field's shorthand, such as 128C3-256C3-P2-512C3-P2-1024-10.

nCk  a convolution to n channels with a k x k kernel, which keeps height and width where padded, then neurons
Pk   k x k pooling, after neurons
n    a dense layer of n neurons; the last one has a neuron per class
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from torch import nn

from hosnn.errors import ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT, identified
from hosnn.nn.blueprint import assemble, check_blueprint
from hosnn.nn.body import Body
from hosnn.nn.encoder import AnalogueEncoder
from hosnn.nn.layers import OverTime, SpikingNetwork, SumPool, TimeDropout
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import Norm, normalisations
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.state import Dynamics

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
SVHN_MEAN, SVHN_STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


class Convolution(NamedTuple):
    """A convolution to `channels` with a `size` x `size` kernel, then `pool` x `pool` pooling (1: none)."""

    channels: int
    size: int
    pool: int = 1


@identified("Twin")
class Twin(Enum):
    """What takes the place of spiking neurons: nothing, or the rectifier of an ordinary network (ANN)."""

    NONE = "none"
    RELU = "relu"


@identified("ConvNet")
@dataclass(frozen=True)
class ConvNet:
    """Convolutions and poolings, then dense layers; `build()` gives the network.

    structure    e.g. "32C3-P2-64C3-P2-128-10"
    image        channels, height, width of the input
    mean, std    per channel, of raw pixels in [0, 1]
    norm         normalisation of currents over time, before all hidden neurons
    norm_dense   False: not before neurons of dense layers
    dropout      after all hidden neurons and their pooling
    pool_gain    pooling is pool_gain times the sum of a window: 1.1 as in the authors' code, 1/4 for the mean of 2 x 2
    spiking_output  the last layer is LIF and logits are its mean trace; False: logits are the mean current
    weight_scale    factor of torch's initial weights, so that all layers fire before training
    padded          False: convolutions without padding, each of which takes k - 1 off height and width
    bias            of layers without normalisation, but the last
    analogue_layers  so many convolutions run on the image once, with rectifiers for neurons (`AnalogueEncoder`)
    dead_zone       pixels up to this level become black (`DeadZone`)
    learned_readout  logits are a learned weighted sum over time steps in place of the mean (`WeightedReadout`)
    twin            RELU: the ANN twin, the same layers with rectifiers in place of all neurons, run once, not over time
    Raises ConfigError for text that is no structure, or sizes that cannot be built.
    """

    structure: str
    image: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    steps: int = 5
    norm: Norm = Norm.SHARED
    norm_dense: bool = True
    dropout: float = 0.2
    pool_gain: float = 1.1
    weight_scale: float = 10.0
    dynamics: Dynamics = Dynamics()  # noqa: RUF009  (a frozen value)
    rule: GradientRule = tssl_bp()  # noqa: RUF009
    spiking_output: bool = True
    padded: bool = field(default=True, metadata=OMITTED_AT_DEFAULT)
    bias: bool = field(default=False, metadata=OMITTED_AT_DEFAULT)
    analogue_layers: int = field(default=0, metadata=OMITTED_AT_DEFAULT)
    dead_zone: float = field(default=0.0, metadata=OMITTED_AT_DEFAULT)
    learned_readout: bool = field(default=False, metadata=OMITTED_AT_DEFAULT)
    twin: Twin = field(default=Twin.NONE, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        check_blueprint(self)
        if not 0 < self.pool_gain < float("inf") or not 0 <= self.dead_zone < 1:
            raise ConfigError(
                f"ConvNet got pool_gain {self.pool_gain} and dead_zone {self.dead_zone}; expected a positive number, "
                "e.g. 1.1, and a level from 0 to below 1, e.g. 10/255"
            )
        convolutions, _ = parse(self.structure)
        if not 0 <= self.analogue_layers <= len(convolutions):
            raise ConfigError(
                f"ConvNet got analogue_layers = {self.analogue_layers} for {self.structure!r}; expected 0 to "
                f"{len(convolutions)}, its number of convolutions"
            )
        if min(self._sides()[-1]) < 1:
            raise ConfigError(
                f"ConvNet got images of {self.image[1]} x {self.image[2]} for {self.structure!r}, whose layers leave "
                f"nothing of them; expected larger images, fewer poolings{'' if self.padded else ' or padded = true'}"
            )

    @property
    def title(self) -> str:
        return self.structure

    @property
    def classes(self) -> int:
        return parse(self.structure)[1][-1]

    def _sides(self) -> list[tuple[int, int]]:
        """Height and width of the image and after each convolution with its pooling."""
        sides = [self.image[1:]]
        for layer in parse(self.structure)[0]:
            lost = 0 if self.padded else layer.size - 1
            height, width = ((side - lost) // layer.pool for side in sides[-1])
            sides.append((height, width))
        return sides

    def build(self) -> SpikingNetwork:
        convolutions, dense = parse(self.structure)
        encoder, layers = OrderedDict[str, nn.Module](), OrderedDict[str, nn.Module]()
        channels = self.image[0]
        for number, layer in enumerate(convolutions, 1):
            analogue = number <= self.analogue_layers
            part = encoder if analogue else layers
            bias = self.bias and self.norm is Norm.NONE
            padding = layer.size // 2 if self.padded else 0
            convolution = nn.Conv2d(channels, layer.channels, layer.size, padding=padding, bias=bias)
            part[f"conv{number}"] = OverTime(convolution)
            part.update(self._neurons(number, self.norm, layer.channels, analogue))
            if layer.pool > 1:
                part[f"pool{number}"] = OverTime(SumPool(layer.pool, self.pool_gain))
            part[f"dropout{number}"] = TimeDropout(self.dropout)
            channels = layer.channels
        height, width = self._sides()[-1]
        size = channels * height * width
        norm = self.norm if self.norm_dense else Norm.NONE
        for number, units in enumerate(dense, len(convolutions) + 1):
            is_last = number == len(convolutions) + len(dense)
            bias = self.bias and norm is Norm.NONE and not is_last
            layers[f"dense{number}"] = OverTime(nn.Flatten(), nn.Linear(size, units, bias=bias))
            if not is_last:
                layers.update(self._neurons(number, norm, units, is_dense=True))
                layers[f"dropout{number}"] = TimeDropout(self.dropout)
            elif self.spiking_output and self.twin is Twin.NONE:
                layers[f"neurons{number}"] = LIF(self.dynamics, self.rule, fixed_threshold=True)
            size = units
        run_once = AnalogueEncoder(encoder) if encoder else None
        return assemble(self, Body(layers), run_once, self.twin is Twin.RELU, self.dead_zone, self.learned_readout)

    def _neurons(
        self, number: int, norm: Norm, size: int, analogue: bool = False, is_dense: bool = False
    ) -> Iterator[tuple[str, nn.Module]]:
        """Normalisation and neurons, or the rectifier in their place, with their names."""
        analogue = analogue or self.twin is Twin.RELU
        if analogue and norm is Norm.PER_STEP:
            norm = Norm.SHARED  # there are no time steps
        for layer in normalisations(norm, size, self.steps, is_dense):
            yield f"norm{number}", layer
        yield f"neurons{number}", OverTime(nn.ReLU()) if analogue else LIF(self.dynamics, self.rule)


def parse(structure: str) -> tuple[tuple[Convolution, ...], tuple[int, ...]]:
    """The convolutions and the sizes of the dense layers of a structure.  Raises ConfigError if it is none."""
    convolutions: list[Convolution] = []
    dense: list[int] = []
    for part in str(structure).split("-"):
        convolution, pool = re.fullmatch(r"([1-9]\d*)C([1-9]\d*)", part), re.fullmatch(r"P([1-9]\d*)", part)
        if re.fullmatch(r"[1-9]\d*", part):
            dense.append(int(part))
        elif not convolution and not pool:
            raise _wrong(structure, part, "is no layer")
        elif dense:
            raise _wrong(structure, part, "comes after a dense layer")
        elif convolution:
            channels, size = (int(number) for number in convolution.groups())
            if size % 2 == 0:
                raise _wrong(structure, part, "has a kernel of even size, which cannot keep height and width")
            convolutions.append(Convolution(channels, size))
        elif pool:
            if not convolutions or convolutions[-1].pool > 1:
                raise _wrong(structure, part, "does not follow a convolution")
            convolutions[-1] = convolutions[-1]._replace(pool=int(pool.group(1)))
    if not dense:
        raise _wrong(structure, "its end", "is no number of classes")
    return tuple(convolutions), tuple(dense)


def _wrong(structure: str, part: str, why: str) -> ConfigError:
    where = part if part == "its end" else repr(part)
    return ConfigError(
        f"ConvNet got the structure {structure!r}, in which {where} {why}; expected convolutions (64C3), each with at "
        "most one pooling (P2) after it, then dense layers (128), the last of them the classes, e.g. "
        "'32C3-P2-64C3-P2-128-10'"
    )


def paper_cifar10() -> ConvNet:
    """The HoSNN authors' CIFAR-10 network: 45 M weights, BatchNorm shared over time, TSSL-BP."""
    return ConvNet("128C3-256C3-P2-512C3-P2-1024C3-512C3-1024-512-10")


def paper_cifar100() -> ConvNet:
    """The HoSNN authors' CIFAR-100 network, whose output is not spiking."""
    return ConvNet(
        "128C3-256C3-P2-512C3-P2-1024C3-512C3-1024-1024-100",
        mean=CIFAR100_MEAN,
        std=CIFAR100_STD,
        spiking_output=False,
    )


def vgg11(classes: int = 10) -> ConvNet:
    """VGG-11 as robust spiking networks use it since SNN-RAT (Ding et al. 2022): 8 steps, mean pooling, full BPTT.

    Neurons are ours (`Dynamics`), and there are no biases.
    """
    return ConvNet(
        f"64C3-P2-128C3-256C3-P2-512C3-512C3-512C3-P2-512C3-512C3-4096-4096-{classes}",
        steps=8,
        norm_dense=False,
        dropout=0.0,
        pool_gain=0.25,
        rule=bptt(),
        spiking_output=False,
    )


def small_convnet(classes: int = 10) -> ConvNet:
    """32C3-P2-64C3-P2-128C3-P2-256-10: 0.6 M weights, small enough to train on two cores."""
    return ConvNet(f"32C3-P2-64C3-P2-128C3-P2-256-{classes}", dropout=0.1)
