"""The body of a network: spiking layers in sequence, neighbours fused into blocks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from hosnn.identity import identified
from hosnn.nn.convolution import channels_last, convolve_images
from hosnn.nn.fusion import ObservedSequential, Planned, accepts_context, any_global_hooks, has_hooks, is_plain
from hosnn.nn.layers import ConstantCoding, OverTime, SumPool
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.spiking.coding import encode_constant
from hosnn.spiking.kernels.kernel_spec import ConstantInput, FusionContext


@dataclass(frozen=True)
class NeuronBlock:
    """Neurons with the operations fused into their kernel: [T, B, ...] -> [T, B, ...].

    after_pooling  the layers that follow a fused pooling in its `OverTime`
    """

    neurons: LIF
    context: FusionContext
    after_pooling: tuple[nn.Module, ...] = ()

    def __call__(self, currents: Tensor, constant: ConstantInput | None = None) -> Tensor:
        context = self.context if constant is None else self.context._replace(constant=constant)
        output: Tensor = self.neurons(currents, context)
        if not self.after_pooling:
            return output
        folded = output.flatten(0, 1)
        for layer in self.after_pooling:
            folded = layer(folded)
        return folded.view(*output.shape[:2], *folded.shape[1:])


@dataclass(frozen=True)
class ImageBlock:
    """The first convolution or dense layer, its normalisation and neurons, before the synaptic filter.

    The filter commutes with the layer up to rounding.  It follows it where an image is constant over time, so that the
    layer runs on the image once, not at every step.  A bias b (after eval-mode normalisation) is then the filter's
    initial state: filtered from there, W x + b is the filtered W x, plus b at every step.  Frames are filtered first:
    the layer runs on all of them anyway, and they have fewer channels before a convolution than after.

    pools  the neurons after it are followed by a pooling that can be fused.  On a CPU the convolution then runs with
           channels last, which suits them; also where hooks prevent the fusion, or a hook would change its rounding
    """

    layer: nn.Conv2d | nn.Linear
    norm: TimeBatchNorm | None
    block: NeuronBlock | None
    pools: bool

    def __call__(self, coding: ConstantCoding, images: Tensor) -> Tensor:
        """The block's output; the order of its operations, and so its rounding, is the same whether it can be fused.

        images  [B, C, H, W] or frames [B, T, C, H, W]
        """
        fused = self.block is not None and self.block.neurons.can_fuse(images, coding.steps)
        bias, norm = self.layer.bias, self.norm
        if images.dim() == 5:
            weighted = self._weighted(coding(images).flatten(0, 1), fused)
            return self._on_currents(weighted.view(coding.steps, -1, *weighted.shape[1:]), norm)
        weighted = self._weighted(images, fused)
        if norm is not None and norm.is_affine:
            bias = norm(weighted.new_zeros(1, 1, norm.channels, 1, 1) if bias is None else bias.view(1, 1, -1, 1, 1))
            weighted = norm(weighted[None]).view_as(weighted)
            norm = None
        initial = None if bias is None else bias.view(-1, *[1] * (weighted.dim() - 2))
        if fused and norm is None and self.block is not None:
            return self.block(weighted[None], ConstantInput(coding.steps, coding.tau_synapse, initial))
        if fused and self.block is not None and self.block.context.pool_gain is not None:
            # Filtered with channels last, as neurons that pool, and normalisation before them, would have to copy it.
            initial = None if initial is None else initial.view(-1)
            return self._on_currents(coding(weighted.movedim(-3, -1), initial).movedim(-1, -3), norm)
        return self._on_currents(encode_constant(weighted, coding.steps, coding.tau_synapse, initial), norm)

    def _weighted(self, images: Tensor, fused: bool) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W'] or [B, N]"""
        if isinstance(self.layer, nn.Linear):
            return self.layer(images.flatten(1))  # type: ignore[no-any-return]
        if self.pools and images.device.type == "cpu":
            images = channels_last(images)
        convolved: Tensor = convolve_images(self.layer, images) if fused else self.layer(images)
        return convolved

    def _on_currents(self, currents: Tensor, norm: TimeBatchNorm | None) -> Tensor:
        """The rest of the block on currents [T, B, C', H', W'] or [T, B, N] -> its output."""
        currents = currents if norm is None else norm(currents)
        return currents if self.block is None else self.block(currents)


class BodyPlan(NamedTuple):
    """What a body runs: modules and blocks in sequence, for currents and for images.

    blocks        on currents
    image_block   the first block on images; None if the filter may not follow the first module
    after_images  the blocks after the image block
    """

    blocks: tuple[Any, ...]
    image_block: ImageBlock | None = None
    after_images: tuple[Any, ...] = ()


@identified("Body")
class Body(ObservedSequential, Planned[BodyPlan]):
    """Spiking layers in sequence, [T, B, ...] -> [T, B, ...]: the result of `nn.Sequential`, with neighbours fused."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.plan().blocks:
            x = block(x)
        return x

    def on_images(self, coding: ConstantCoding, images: Tensor) -> Tensor:
        """`self(coding(images))`; images [B, C, H, W] or frames [B, T, C, H, W]."""
        plan = self.plan()
        if plan.image_block is None or not is_plain(ConstantCoding, coding) or not coding.fits(images):
            return self(coding(images))  # type: ignore[no-any-return]
        output = plan.image_block(coding, images)
        for block in plan.after_images:
            output = block(output)
        return output

    def _make_plan(self) -> BodyPlan:
        layers = list(self)
        if not self.fused:
            return BodyPlan(tuple(layers))
        blocks = _blocks(layers)
        first = _as_weights(layers[0]) if layers and is_plain(Body, self) else None
        if first is None:
            return BodyPlan(blocks)
        norm = next(iter(layers[1:]), None)
        if not isinstance(norm, TimeBatchNorm) or any(map(has_hooks, norm.modules())):
            norm = None
        position = 1 if norm is None else 2
        neurons, pooling = (*layers[position : position + 2], None, None)[:2]
        if first.bias is not None and not isinstance(neurons, LIF):
            return BodyPlan(blocks)  # only neurons take a bias as the filter's initial state
        pools = isinstance(neurons, LIF) and pooling is not None and _pool_gain(pooling) is not None
        block = blocks[position] if position < len(blocks) and isinstance(blocks[position], NeuronBlock) else None
        if block is None:
            return BodyPlan(blocks, ImageBlock(first, None, None, pools), blocks[1:])
        return BodyPlan(blocks, ImageBlock(first, norm, block, pools), blocks[position + 1 :])


def _blocks(layers: list[nn.Module]) -> tuple[Any, ...]:
    """The layers, neurons that accept a context together with the pooling after them."""
    blocks: list[Any] = []
    position = 0
    while position < len(layers):
        layer = layers[position]
        position += 1
        if not isinstance(layer, LIF) or not accepts_context(layer):
            blocks.append(layer)
            continue
        reusable = position > 1 and _output_reusable(layers[position - 2])
        gain = _pool_gain(layers[position]) if position < len(layers) else None
        after_pooling: tuple[nn.Module, ...] = ()
        if gain is not None:
            after_pooling = tuple(_folded_layers(layers[position])[1:])
            position += 1
        blocks.append(NeuronBlock(layer, FusionContext(gain, None, reusable), after_pooling))
    return tuple(blocks)


def _output_reusable(layer: nn.Module) -> bool:
    """Whether only the next layer needs a layer's output: not its own backward, and no hook that may have kept it."""
    if any_global_hooks():
        return False
    if is_plain(TimeBatchNorm, layer):
        return not any(map(has_hooks, layer.modules()))
    folded = _folded_layers(layer)
    return bool(folded) and (is_plain(nn.Conv2d, folded[-1]) or is_plain(nn.Linear, folded[-1]))


def _pool_gain(layer: nn.Module) -> float | None:
    """The gain, over the mean of a window, of the 2 x 2 pooling that a layer begins with; None if it does not."""
    first = next(iter(_folded_layers(layer)), None)
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


def _as_weights(layer: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The convolution, or dense layer on flattened images, that a layer consists of; None for another layer."""
    match _folded_layers(layer):
        case [nn.Conv2d() as convolution] if is_plain(nn.Conv2d, convolution):
            return convolution
        case [nn.Flatten(start_dim=1, end_dim=-1) as flatten, nn.Linear() as dense]:
            return dense if is_plain(nn.Flatten, flatten) and is_plain(nn.Linear, dense) else None
    return None


def _folded_layers(layer: nn.Module) -> list[nn.Module]:
    """The layers in an `OverTime`; none if the module is another, or has hooks."""
    return list(layer) if isinstance(layer, OverTime) and is_plain(OverTime, layer) else []
