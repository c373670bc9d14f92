"""Synaptic operations of a network, counted from the spikes of its layers before the synaptic filter.

A spike causes an accumulate for every nonzero weight it reaches, through pooling too: filter and pooling are linear, so
hardware can deliver spikes one by one.  Counting traces or pooled sums would make a multiplication of each.
Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.nn.encoder import AnalogueEncoder, DeadZone
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, TimeDropout, WeightedReadout
from hosnn.nn.neurons import LIF
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.nn.resnet import Residual
from hosnn.nn.streaming import modules_in_order
from hosnn.results.inspection import SynapticOperations

Linear = Callable[[Tensor], Tensor]
WeightLayer = nn.Conv1d | nn.Conv2d | nn.Linear

NOT_COUNTED = (DeadZone, Normalise, ConstantCoding, TimeBatchNorm, TimeDropout, MeanReadout, WeightedReadout)
"""Modules whose work is not that of synapses or neurons."""


@dataclass(frozen=True)
class Events:
    """What reaches a place of the network.

    totals    events of every input or neuron, summed over time steps and images  [*N] float64
    path      pooling and reshaping since then
    analogue  events are nonzero values of the input, not spikes
    """

    totals: Tensor
    path: tuple[Linear, ...] = ()
    analogue: bool = False


@dataclass(frozen=True)
class EncoderInputs:
    """Nonzero inputs of a layer of weights in an `AnalogueEncoder`, summed over its runs and images  [*N] float64.

    runs  how often the layer runs on an image: once, or once on each of its frames
    """

    totals: Tensor
    runs: int


def encoder_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """The layers of weights that run on the image once, by module path."""
    encoders = {name: module for name, module in model.named_modules() if isinstance(module, AnalogueEncoder)}
    return {
        f"{name}.{path}": layer
        for name, encoder in encoders.items()
        for path, layer in encoder.named_modules()
        if isinstance(layer, WeightLayer)
    }


@torch.no_grad()
def synaptic_operations(
    model: nn.Module,
    inputs: Tensor,
    spikes: Mapping[str, Tensor],
    steps: int,
    images: int,
    encoder: Mapping[str, EncoderInputs] | None = None,
) -> tuple[SynapticOperations, ...]:
    """Operations of every layer of weights, per image.

    inputs  nonzero values of the encoded input, summed over time steps and images  [C, H, W] float64
    spikes  the same of the spikes of every spiking layer, by module path             [*N] float64
    encoder  inputs of the layers of `encoder_layers`, by module path
    Raises ConfigError for a network with modules whose operations are not known here.
    """
    counter = _Counter(spikes, steps, images, encoder or {})
    counter.through("", model, Events(inputs, analogue=True))
    return tuple(counter.found)


class _Counter:
    def __init__(
        self, spikes: Mapping[str, Tensor], steps: int, images: int, encoder: Mapping[str, EncoderInputs]
    ) -> None:
        self.spikes, self.steps, self.images, self.encoder = spikes, steps, images, encoder
        self.found: list[SynapticOperations] = []

    def through(self, name: str, model: nn.Module, events: Events | None) -> Events | None:
        """The events behind a part of the network; None if there are currents."""
        for place, module in modules_in_order(name, model):
            events = self._after(place, module, events)
        return events

    def _after(self, name: str, module: nn.Module, events: Events | None) -> Events | None:
        if isinstance(module, LIF):
            return Events(self.spikes[name])
        if isinstance(module, AnalogueEncoder):
            for path, weights in encoder_layers(module).items():
                self._add_encoder_layer(f"{name}{path}", weights)
            return events
        if isinstance(
            module, (DeadZone, Normalise, ConstantCoding, TimeBatchNorm, TimeDropout, MeanReadout, WeightedReadout)
        ):
            return events  # `inputs` are those after the coding; normalisation becomes part of the weights
        if isinstance(module, Residual):
            self.through(f"{name}.main", module.main, events)
            self.through(f"{name}.shortcut", module.shortcut, events)
            return Events(self.spikes[f"{name}.neurons"])
        if not isinstance(module, OverTime):
            raise _unknown(name, module)
        for part, layer in module.named_children():
            events = self._after_layer(f"{name}.{part}", layer, events)
        return events

    def _after_layer(self, name: str, layer: nn.Module, events: Events | None) -> Events | None:
        if isinstance(layer, WeightLayer):
            if events is None:
                raise ConfigError(f"operations of {name} cannot be counted: its inputs are currents, not spikes")
            self.found.append(self._count(name, layer, events, self.steps))
            return None
        linear = _linear(layer)
        if linear is None:
            raise _unknown(name, layer)
        return None if events is None else replace(events, path=(*events.path, linear))

    def _add_encoder_layer(self, name: str, layer: WeightLayer) -> None:
        if name not in self.encoder:
            raise ConfigError(f"operations of {name} cannot be counted: its inputs were not recorded")
        inputs = self.encoder[name]
        self.found.append(self._count(name, layer, Events(inputs.totals, analogue=True), inputs.runs))

    def _count(self, name: str, layer: WeightLayer, events: Events, runs: int) -> SynapticOperations:
        effective = float((events.totals * _fan_out(layer, events)).sum()) / self.images
        inputs = torch.ones_like(_pooled(events.totals[None], events.path))
        dense = float(_with_weights(layer, torch.ones_like)(inputs).sum()) * runs
        return SynapticOperations(
            layer=name,
            macs=effective if events.analogue else 0.0,
            acs=0.0 if events.analogue else effective,
            dense=dense,
        )


def _fan_out(layer: WeightLayer, events: Events) -> Tensor:
    """Nonzero weights that one event of each input reaches [*N]: the gradient of all outputs with weights of 1."""
    reached = _with_weights(layer, lambda weight: (weight != 0).to(weight.dtype))
    with torch.enable_grad():
        inputs = torch.zeros_like(events.totals[None]).requires_grad_()
        (gradient,) = torch.autograd.grad(reached(_pooled(inputs, events.path)).sum(), inputs)
    return gradient[0]


def _pooled(values: Tensor, path: tuple[Linear, ...]) -> Tensor:
    for linear in path:
        values = linear(values)
    return values


def _with_weights(layer: WeightLayer, change: Callable[[Tensor], Tensor]) -> Linear:
    """The layer in double precision with changed weights and without its bias; hooks do not see it."""
    weight = change(layer.weight.detach().double())
    if isinstance(layer, nn.Linear):
        return lambda x: functional.linear(x, weight)
    return lambda x: layer._conv_forward(x, weight, None)


def _linear(layer: nn.Module) -> Linear | None:
    """What a layer without weights does to numbers of events: pooling adds them up; None if it is not known."""
    if isinstance(layer, nn.Flatten):
        return layer
    if isinstance(layer, (nn.Identity, nn.Dropout)):
        return nn.Identity()
    if isinstance(layer, nn.AvgPool2d):
        settings = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
        return lambda x: functional.avg_pool2d(x, *settings, divisor_override=1)
    if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
        return lambda x: x.sum((-2, -1), keepdim=True)
    return None


def _unknown(name: str, module: nn.Module) -> ConfigError:
    return ConfigError(
        f"operations cannot be counted: what {name or 'the model'} ({type(module).__name__}) does to spikes is not "
        "known here; expected convolutions, dense layers, mean or sum pooling and hosnn's layers"
    )
