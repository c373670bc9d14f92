"""The body of a network: spiking layers in sequence, neighbours fused into blocks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from hosnn.identity import identified
from hosnn.nn.convolution import channels_last, convolve_images
from hosnn.nn.fusion import ChangingSequence, Planned, any_hooked_everywhere, is_hooked, is_plain, takes_context
from hosnn.nn.layers import ConstantCoding, OverTime, SumPool
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.spiking.kernels.kernel_spec import ConstantInput, FusionContext


@dataclass(frozen=True)
class NeuronBlock:
    """Neurons with the operations that their kernel does as well: [T, B, ...] -> [T, B, ...].

    after  what follows the pooling in its `OverTime`
    """

    neurons: LIF
    context: FusionContext
    after: tuple[nn.Module, ...] = ()

    def __call__(self, currents: Tensor, constant: ConstantInput | None = None) -> Tensor:
        context = self.context if constant is None else self.context._replace(constant=constant)
        output: Tensor = self.neurons(currents, context)
        if not self.after:
            return output
        folded = output.flatten(0, 1)
        for layer in self.after:
            folded = layer(folded)
        return folded.view(*output.shape[:2], *folded.shape[1:])


@dataclass(frozen=True)
class ImageBlock:
    """The first convolution, before the synaptic filter rather than after it, with what follows up to the neurons.

    The filter commutes with the convolution up to rounding: an image that stays is convolved once, not at every step.
    A bias b (or what eval-mode normalisation makes of it) is where the filter starts: filtered from b, W x + b is the
    filtered W x, plus b at every step.
    """

    convolution: nn.Conv2d
    norm: TimeBatchNorm | None
    block: NeuronBlock | None

    def __call__(self, coding: ConstantCoding, images: Tensor) -> Tensor | None:
        """The block's output; None where the convolution has to see coded images.

        images  [B, C, H, W] or frames [B, T, C, H, W]
        """
        fused = self.block is not None and self.block.neurons.can_fuse(images, coding.steps)
        bias = self.convolution.bias
        if bias is not None and not fused:
            return None  # the eager step is the specification, in its order
        pooled = self.block is not None and fused and self.block.context.pool_gain is not None
        folded = images.flatten(0, -4)
        if pooled and images.device.type == "cpu":
            folded = channels_last(folded)  # as neurons that pool read it
        convolved = convolve_images(self.convolution, folded) if fused else self.convolution(folded)
        convolved = convolved.view(*images.shape[:-3], *convolved.shape[1:])
        norm = self.norm
        if fused and norm is not None and norm.is_affine:
            bias = norm(convolved.new_zeros(1, 1, norm.channels, 1, 1) if bias is None else bias.view(1, 1, -1, 1, 1))
            convolved = norm(convolved if convolved.dim() == 5 else convolved[None]).view_as(convolved)
            norm = None
        initial = None if bias is None else bias.view(-1, 1, 1)
        if fused and norm is None and images.dim() == 4 and self.block is not None:
            return self.block(convolved[None], ConstantInput(coding.steps, coding.tau_synapse, initial))
        if pooled:
            # Filtered with channels last, which neurons that pool, and normalisation before them, would have to copy.
            initial = None if initial is None else initial.view(-1)
            currents = coding(convolved.movedim(-3, -1), initial).movedim(-1, -3)
        else:
            currents = coding(convolved, initial)
        if norm is not None:
            currents = norm(currents)
        return currents if self.block is None else self.block(currents)


class Plan(NamedTuple):
    """A body's modules and blocks in sequence, and the first of them in the form for images.

    image_block    None: the first module is no convolution that could come before the synaptic filter
    after_images   what follows the image block
    """

    blocks: tuple[Any, ...]
    image_block: ImageBlock | None = None
    after_images: tuple[Any, ...] = ()


@identified("Body")
class Body(ChangingSequence, Planned[Plan]):
    """Spiking layers one after the other: [T, B, ...] -> [T, B, ...], the same as `nn.Sequential` with less work."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.plan().blocks:
            x = block(x)
        return x

    def on_images(self, coding: ConstantCoding, images: Tensor) -> Tensor:
        """`self(coding(images))`; images [B, C, H, W] or frames [B, T, C, H, W]."""
        plan = self.plan()
        output = None
        if plan.image_block is not None and is_plain(ConstantCoding, coding) and coding.fits(images):
            output = plan.image_block(coding, images)
        if output is None:
            return self(coding(images))  # type: ignore[no-any-return]
        for block in plan.after_images:
            output = block(output)
        return output

    def _decide(self) -> Plan:
        layers = list(self)
        if not self.fused:
            return Plan(tuple(layers))
        blocks = _blocks(layers)
        convolution = _only_convolution(layers[0]) if layers and is_plain(Body, self) else None
        if convolution is None:
            return Plan(blocks)
        norm = next(iter(layers[1:]), None)
        if not isinstance(norm, TimeBatchNorm) or any(map(is_hooked, norm.modules())):
            norm = None
        at = 1 if norm is None else 2
        block = blocks[at] if at < len(blocks) and isinstance(blocks[at], NeuronBlock) else None
        if block is None:
            return Plan(blocks, ImageBlock(convolution, None, None), blocks[1:])
        return Plan(blocks, ImageBlock(convolution, norm, block), blocks[at + 1 :])


def _blocks(layers: list[nn.Module]) -> tuple[Any, ...]:
    blocks: list[Any] = []
    at = 0
    while at < len(layers):
        layer = layers[at]
        at += 1
        if not isinstance(layer, LIF) or not takes_context(layer):
            blocks.append(layer)
            continue
        reusable = at > 1 and _gives_memory_away(layers[at - 2])
        gain = _pool_gain(layers[at]) if at < len(layers) else None
        after: tuple[nn.Module, ...] = ()
        if gain is not None:
            after = tuple(_folded(layers[at])[1:])
            at += 1
        blocks.append(NeuronBlock(layer, FusionContext(gain, None, reusable), after))
    return tuple(blocks)


def _gives_memory_away(layer: nn.Module) -> bool:
    """Whether only the next layer reads a layer's output: its own backward does not, and no hook may have kept it."""
    if any_hooked_everywhere():
        return False
    if is_plain(TimeBatchNorm, layer):
        return not any(map(is_hooked, layer.modules()))
    folded = _folded(layer)
    return bool(folded) and (is_plain(nn.Conv2d, folded[-1]) or is_plain(nn.Linear, folded[-1]))


def _pool_gain(layer: nn.Module) -> float | None:
    """The gain over the mean of the pooling of 2 x 2 that a layer begins with; None if it begins with another."""
    first = next(iter(_folded(layer)), None)
    if not isinstance(first, nn.AvgPool2d) or not (is_plain(SumPool, first) or is_plain(nn.AvgPool2d, first)):
        return None
    if _pair(first.kernel_size) != (2, 2) or _pair(first.stride) != (2, 2) or _pair(first.padding) != (0, 0):
        return None
    if first.ceil_mode or first.divisor_override is not None:
        return None
    if not isinstance(first, SumPool):
        return 1.0
    return first.gain * first.size**2 if first.size == 2 else None


def _pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, tuple) else (size, size)


def _only_convolution(layer: nn.Module) -> nn.Conv2d | None:
    """The convolution that is all a layer does."""
    folded = _folded(layer)
    if len(folded) != 1 or not isinstance(folded[0], nn.Conv2d) or not is_plain(nn.Conv2d, folded[0]):
        return None
    return folded[0]


def _folded(layer: nn.Module) -> list[nn.Module]:
    """The layers that an `OverTime` folds time for; none of another module, or of one with hooks."""
    return list(layer) if isinstance(layer, OverTime) and is_plain(OverTime, layer) else []
