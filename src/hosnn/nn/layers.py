"""What stands between spiking layers: normalisation, coding, layers folded over time, pooling, dropout, readouts."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as everywhere

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified
from hosnn.nn.convolution import channels_last, convolve_images
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.spiking.coding import encode_constant, filter_synaptic
from hosnn.spiking.decoding import mean_over_time
from hosnn.spiking.kernels.kernel_spec import ALONE, Around, Held


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
    """Present an image for `steps` time steps through the synaptic filter (`encode_constant`).

    forward  images [B, C, H, W], or frames [B, T, C, H, W] with T = steps  ->  [T, B, C, H, W]
    Raises ShapeError for anything else.
    """

    def __init__(self, steps: int = 5, tau_synapse: float = 3.0) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"ConstantCoding got steps = {steps}; expected at least 1")
        self.steps, self.tau_synapse = steps, tau_synapse

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return encode_constant(x, self.steps, self.tau_synapse)
        if x.dim() == 5 and x.shape[1] == self.steps:
            return filter_synaptic(x.transpose(0, 1), self.tau_synapse)
        raise ShapeError(
            f"the network got input {tuple(x.shape)}; expected images [B, C, H, W] or frames "
            f"[B, {self.steps}, C, H, W] (its number of time steps)"
        )


@identified("OverTime")
class OverTime(nn.Sequential):
    """Apply layers to every time step by folding time into the batch: [T, B, ...] -> [T, B, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        folded = x.flatten(0, 1)
        for layer in self:
            folded = layer(folded)
        return folded.view(*x.shape[:2], *folded.shape[1:])


@identified("SumPool")
class SumPool(nn.AvgPool2d):
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


@identified("Body")
class Body(nn.Sequential):
    """Spiking layers one after the other: [T, B, ...] -> [T, B, ...], the same as `nn.Sequential` with less work.

    A pooling of 2 x 2 that follows neurons is done by their kernel, where there is one that can, so that traces before
    pooling are never written down.  Modules that are hooked run by themselves, so that hooks see what they expect.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _through(list(self), x)

    def coded(self, coding: ConstantCoding, images: Tensor) -> Tensor:
        """`self(coding(images))`; images [B, C, H, W] or frames [B, T, C, H, W].

        A convolution without bias comes before the synaptic filter, with which it commutes up to rounding: an image
        that stays is convolved once, not at every step.
        """
        layers = list(self)
        convolution = _convolution(layers[0]) if layers else None
        fits = images.dim() == 4 or (images.dim() == 5 and images.shape[1] == coding.steps)  # else coding refuses them
        if convolution is None or not fits or not _untouched(ConstantCoding, coding) or _hooked(self):
            return self(coding(images))  # type: ignore[no-any-return]
        others = layers[1:]
        following = others[1:] if others and isinstance(others[0], TimeBatchNorm) else others
        after = following[0] if following and isinstance(following[0], LIF) and not _hooked(following[0]) else None
        fused = after is not None and after.can_fuse(images if images.dim() == 5 else images[None])
        folded = images.flatten(0, -4)
        pools = fused and len(following) > 1 and _pool(following[1])
        if pools and images.device.type == "cpu":
            folded = channels_last(folded)  # as pooling neurons want what comes of it
        seen = convolve_images(convolution, folded) if fused else convolution(folded)
        seen = seen.view(*images.shape[:-3], *seen.shape[1:])
        if seen.dim() == 4 and after is not None and after is others[0] and after.can_fuse(seen[None]):
            held = Held(coding.steps, coding.tau_synapse)
            return _through(others, seen[None], Around(held=held, spent=not _hooked_everywhere()))
        if pools:
            # Channels last costs nothing here; pooling neurons, and normalisation before them, would have to copy.
            return _through(others, coding(seen.movedim(-3, -1)).movedim(-1, -3))
        return _through(others, coding(seen))


def _through(layers: Sequence[nn.Module], x: Tensor, around: Around = ALONE) -> Tensor:
    """around  of the first layer; if it holds its input that can be fused"""
    waiting = list(layers)
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, LIF) and layer.as_written and not _hooked(layer):
            pool = _pool(waiting[0]) if waiting else None
            if pool and layer.can_fuse(x):
                x = layer(x, around._replace(gain=pool.gain * pool.size**2))
                x = OverTime(*list(waiting.pop(0))[1:])(x)  # type: ignore[call-overload]
            else:
                x = layer(x, around)
        else:
            x = layer(x)
        around = Around(spent=_only_hands_on(layer))
    return x


def _only_hands_on(layer: nn.Module) -> bool:
    """Whether nobody but the next layer sees what a layer gives: its own way back does not need it."""
    inside, kinds = _inside(layer), (nn.Conv2d, nn.Linear)
    return bool(inside) and any(_untouched(kind, inside[-1]) for kind in kinds) and not _hooked_everywhere()


def _pool(layer: nn.Module) -> SumPool | None:
    """The pooling of 2 x 2 that a layer begins with."""
    first = next(iter(_inside(layer)), None)
    if not isinstance(first, SumPool) or not _untouched(SumPool, first) or _hooked(first):
        return None
    settings = (first.size, first.kernel_size, first.stride, first.padding, first.ceil_mode, first.divisor_override)
    return first if settings == (2, 2, 2, 0, False, None) else None


def _convolution(layer: nn.Module) -> nn.Conv2d | None:
    """The convolution without bias that a layer consists of."""
    inside = _inside(layer)
    if len(inside) != 1 or not isinstance(inside[0], nn.Conv2d):
        return None
    return inside[0] if _untouched(nn.Conv2d, inside[0]) and inside[0].bias is None else None


def _inside(layer: nn.Module) -> list[nn.Module]:
    """What `OverTime` folds time for; nothing of another layer, or of one that something looks on."""
    return list(layer) if isinstance(layer, OverTime) and _untouched(OverTime, layer) else []


def _untouched(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a module is of this very kind, its forward its own, and nothing looks on."""
    return type(module) is kind and "forward" not in vars(module) and not _hooked(module)


def _hooked(*modules: nn.Module) -> bool:
    # Hooks on all modules are left out: another thread may have set them, and what runs here must not depend on that.
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def _hooked_everywhere() -> bool:
    """Whether every module's input or output is looked at, and perhaps kept."""
    return bool(everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks)


@identified("MeanReadout")
class MeanReadout(nn.Module):
    """Logits = mean over time of the last layer's traces or currents (`mean_over_time`): [T, B, K] -> [B, K]."""

    def forward(self, outputs: Tensor) -> Tensor:
        return mean_over_time(outputs)


@runtime_checkable
class HasOutputs(Protocol):
    """A network whose last layer can be watched over time, as the van-Rossum loss and per-step attacks need."""

    def outputs(self, x: Tensor) -> Tensor:
        """Raw pixels [B, C, H, W] (or frames [B, T, C, H, W]) -> [T, B, K]."""


@identified("SpikingNetwork")
class SpikingNetwork(nn.Module):
    """A function from raw pixels to logits: normalise, encode over time, run the body, read out.

    forward  images [B, C, H, W] in [0, 1] or frames [B, T, C, H, W] -> logits [B, K]
    outputs  the same -> the last layer's traces or currents [T, B, K]
    blueprint  the frozen value that builds this network, if one does; checkpoints store it
    """

    def __init__(
        self,
        normalise: Normalise,
        coding: ConstantCoding,
        body: nn.Module,
        readout: nn.Module,
        blueprint: object | None = None,
    ) -> None:
        super().__init__()
        self.blueprint = blueprint
        self.normalise, self.coding, self.body, self.readout = normalise, coding, body, readout

    @property
    def steps(self) -> int:
        return self.coding.steps

    def outputs(self, x: Tensor) -> Tensor:
        images = self.normalise(x)
        if isinstance(self.body, Body):
            return self.body.coded(self.coding, images)
        return self.body(self.coding(images))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.outputs(x))  # type: ignore[no-any-return]
