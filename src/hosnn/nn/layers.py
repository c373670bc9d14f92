"""The layers of a network besides neurons: input normalisation, coding, folding of time, pooling, dropout, readout."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified
from hosnn.nn.fusion import ObservedModule, ObservedSequential
from hosnn.spiking.coding import encode_constant, filter_synaptic
from hosnn.spiking.decoding import mean_over_time


@identified("Normalise")
class Normalise(nn.Module):
    """(x - mean) / std per channel; the first layer of a network, so that a threat's eps stays in pixel units.

    forward  raw pixels [..., C, H, W] in [0, 1] -> [..., C, H, W]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ConfigError(f"Normalise got mean {mean} and std {std}; expected one mean and one std > 0 per channel")
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


@identified("ConstantCoding")
class ConstantCoding(nn.Module):
    """Direct coding: an image at every one of `steps` time steps, filtered by the synapse (`encode_constant`).

    forward  images [B, C, H, W], or frames [B, T, C, H, W] with T = steps  ->  [T, B, C, H, W]
    initial  state of the filter before the first step, broadcastable to an image; None: 0
    Raises ShapeError for other shapes.
    """

    def __init__(self, steps: int = 5, tau_synapse: float = 3.0) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"ConstantCoding got steps = {steps}; expected at least 1")
        self.steps, self.tau_synapse = steps, tau_synapse

    def forward(self, x: Tensor, initial: Tensor | None = None) -> Tensor:
        if x.dim() == 4:
            return encode_constant(x, self.steps, self.tau_synapse, initial)
        if self.fits(x):
            return filter_synaptic(x.transpose(0, 1), self.tau_synapse, initial)
        raise ShapeError(
            f"the network got input {tuple(x.shape)}; expected images [B, C, H, W] or frames "
            f"[B, {self.steps}, C, H, W] (its number of time steps)"
        )

    def fits(self, x: Tensor) -> bool:
        """Whether x has the shape of images, or of frames over the right number of time steps."""
        return x.dim() == 4 or (x.dim() == 5 and x.shape[1] == self.steps)


@identified("OverTime")
class OverTime(ObservedSequential):
    """Apply layers to every time step by folding time into the batch: [T, B, ...] -> [T, B, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        folded = x.flatten(0, 1)
        for layer in self:
            folded = layer(folded)
        return folded.view(*x.shape[:2], *folded.shape[1:])


@identified("SumPool")
class SumPool(ObservedModule, nn.AvgPool2d):
    """Spiking pooling of the authors' code: gain · sum over a square window (1.1 x sum = 4.4 x average for 2x2)."""

    def __init__(self, size: int = 2, gain: float = 1.1) -> None:
        super().__init__(size)
        self.size, self.gain = size, gain

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (self.gain * self.size**2)


@identified("TimeDropout")
class TimeDropout(nn.Module):
    """Dropout with one mask over all time steps: [T, B, ...] -> [T, B, ...]; identity in eval()."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ConfigError(f"TimeDropout got probability {probability}; expected a number in [0, 1)")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        return x * functional.dropout(torch.ones_like(x[0]), self.probability)


@identified("MeanReadout")
class MeanReadout(nn.Module):
    """Logits = mean over time of the last layer's traces or currents (`mean_over_time`): [T, B, K] -> [B, K]."""

    def forward(self, outputs: Tensor) -> Tensor:
        return mean_over_time(outputs)


@identified("WeightedReadout")
class WeightedReadout(nn.Module):
    """Logits = sum_t w[t] a[t] of the last layer's outputs: [T, B, K] -> [B, K];  w [T] learned, 1/T at first.

    Raises ShapeError for outputs of another number of steps.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((steps,), 1 / steps))

    def forward(self, outputs: Tensor) -> Tensor:
        if len(outputs) != len(self.weights):
            raise ShapeError(
                f"WeightedReadout got {len(outputs)} time steps, expected its {len(self.weights)}; run the network for "
                "the steps it was made for"
            )
        logits: Tensor = torch.tensordot(self.weights.to(outputs.dtype), outputs, dims=1)
        return logits


@runtime_checkable
class HasOutputs(Protocol):
    """A network that gives its last layer's output over time, which losses over traces need."""

    def outputs(self, x: Tensor) -> Tensor:
        """Raw pixels [B, C, H, W] (or frames [B, T, C, H, W]) -> [T, B, K]."""


@identified("SpikingNetwork")
class SpikingNetwork(nn.Module):
    """A function from raw pixels to logits: normalise, encode over time, run the body, read out.

    encoder  layers that run on the normalised image once, before it is encoded over time; None: none

    forward  images [B, C, H, W] in [0, 1] or frames [B, T, C, H, W] -> logits [B, K]
    outputs  the same -> the last layer's traces or currents [T, B, K]
    blueprint  the frozen value that builds this network, if one does; checkpoints store it

    Logits have at least the precision of float32, also where autocast computes the layers in fewer bits: in bfloat16 a
    probability of 0.999 is 1, and a loss that takes the logarithm of the rest is infinite.
    """

    def __init__(
        self,
        normalise: nn.Module,
        coding: ConstantCoding,
        body: nn.Module,
        readout: nn.Module,
        blueprint: object | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blueprint = blueprint
        self.normalise, self.encoder = normalise, encoder
        self.coding, self.body, self.readout = coding, body, readout

    @property
    def steps(self) -> int:
        return self.coding.steps

    def outputs(self, x: Tensor) -> Tensor:
        images = self.normalise(x)
        if self.encoder is not None:
            images = self.encoder(images)
        on_images = getattr(self.body, "on_images", None)  # a Body may fuse the coding with its first layers
        if on_images is not None:
            return on_images(self.coding, images)  # type: ignore[no-any-return]
        return self.body(self.coding(images))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.outputs(x)
        precision = torch.promote_types(outputs.dtype, torch.float32)
        return self.readout(outputs.to(precision)).to(precision)  # type: ignore[no-any-return]
