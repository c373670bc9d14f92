"""Controls for homeostasis: twins of a network that keep one of its effects and drop the rest.

What TA-LIF changes is several things at once: weights trained along with k, a threshold that differs between neurons
and time steps, a threshold that reacts to the input, and other firing rates.  Each function here returns a new network
and leaves its argument unchanged:

without_adaptation         the weights alone: k = 0
frozen_at_mean_threshold   the weights and the mean thresholds, with nothing that reacts
static_thresholds          LIF whose neurons each learn a threshold of their own, to be trained like TA-LIF
rate_matched               LIF that fires as much as another network does
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, SignatureError
from hosnn.nn.modes import device_of, evaluating
from hosnn.nn.neurons import TALIF, hidden_neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature.calibration import trajectories
from hosnn.signature.homeostasis import Share, replace_layer
from hosnn.spiking.gradient_rule import Rule
from hosnn.spiking.state import Step

M = TypeVar("M", bound=nn.Module)
Batches = Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]
"""Batches of images x [B, ...], or (x, ...) with x first."""


def without_adaptation(model: M) -> M:
    """A copy with k = 0: the weights that were trained along with adaptation, in plain LIF neurons.

    Raises SignatureError if no layer adapts.
    """
    twin = copy.deepcopy(model)
    for layer in _adaptive(twin).values():
        with torch.no_grad():
            layer.adaptation.zero_()
    return twin


def frozen_at_mean_threshold(model: M, batches: Batches, over_time: bool = True) -> M:
    """A copy whose adapting thresholds stand still at their mean over the images of `batches`, as constants.

        θ̄[t] = mean over images of θ[t]     or, over_time = False,     θ̄ = mean over images and t of θ[t]

    Each neuron keeps its θ̄ (which TA-LIF may well have driven below 0), and nothing reacts to the input any more.
    Raises SignatureError if no layer adapts or there are no images.
    """
    twin = copy.deepcopy(model)
    layers = _adaptive(twin)
    means = _mean(model, batches, lambda step: step.threshold.double().sum(1))
    for name, layer in layers.items():
        mean = means[name] if over_time else means[name].mean(0, keepdim=True)
        mean = mean.to(layer.signature.dtype)
        replace_layer(twin, name, ThresholdLIF.from_lif(layer, mean, learn=False, beyond=layer.beyond))
    return twin


def static_thresholds(model: M, images: Tensor, share: Share = Share.NEURON, rule: Rule | None = None) -> M:
    """A copy whose hidden LIF layers have learnable thresholds, all of them where they were: the same outputs.

    images  a few inputs of the network, which tell the shapes of its layers
    rule    how the copy's hidden layers are differentiated; None keeps their own
    To be trained as a homeostatic twin would be, it separates "the threshold adapts" from "each neuron has another".
    Raises SignatureError for adapting layers, ConfigError if the rule gives thresholds no gradient.
    """
    other = [name for name, layer in hidden_neurons(model).items() if isinstance(layer, (TALIF, ThresholdLIF))]
    if other:
        raise SignatureError(
            f"static_thresholds got layers whose thresholds are none of plain LIF: {other}; start from a LIF network, "
            "or use frozen_at_mean_threshold to keep what adaptation made of the thresholds"
        )
    with evaluating(model), torch.no_grad():
        runs = trajectories(model, images.to(device_of(model, images)))
    twin = copy.deepcopy(model)
    for name, layer in hidden_neurons(twin).items():
        layer.rule = rule or layer.rule
        membrane = runs[name].membrane
        thresholds = membrane.new_full((1, *share.shape(membrane.shape[2:])), layer.dynamics.threshold)
        replace_layer(twin, name, ThresholdLIF.from_lif(layer, thresholds))
    return twin


@dataclass(frozen=True)
class LayerRate:
    """Spikes per neuron and time step of one layer, before and after its threshold was set to reach `target`."""

    layer: str
    threshold: float
    before: float
    target: float
    achieved: float

    @property
    def error(self) -> float:
        """Relative deviation from the target."""
        return abs(self.achieved - self.target) / self.target if self.target else math.inf


@dataclass(frozen=True)
class RateMatched(Generic[M]):
    """A network with other thresholds, and the firing rates that they give."""

    model: M
    rates: tuple[LayerRate, ...]


def rate_matched(model: M, target: nn.Module, batches: Batches, tolerance: float = 0.01) -> RateMatched[M]:
    """A copy of a LIF network whose hidden layers fire as much as those of `target` do on the same images.

    One threshold per layer, found by bisection, from the first layer to the last, each on what the layers already
    matched hand on.  Its weights are those of `model`: it separates "homeostasis" from "fewer (or more) spikes".
    tolerance  relative; closer than this for every layer
    Raises SignatureError if the networks' layers differ or those of `model` adapt or there are no images, ConfigError
    if no positive threshold reaches a rate (0 is none: such a layer says nothing).
    """
    layers, others = hidden_neurons(model), hidden_neurons(target)
    if set(layers) != set(others) or any(isinstance(layer, TALIF) for layer in layers.values()):
        raise SignatureError(
            f"rate_matched got networks with the spiking layers {sorted(layers)} and {sorted(others)}; expected a LIF "
            "network, without adaptation, and one with the same layers"
        )
    kept = [images for images in map(_images, batches) if len(images)]
    wanted, before = firing_rates(target, kept), firing_rates(model, kept)
    twin, found = copy.deepcopy(model), []
    for name in _currents(model, kept[0]):  # in the order of the forward pass
        threshold = _threshold_for(twin, name, wanted[name], kept, tolerance)
        found.append(LayerRate(name, threshold, before[name], wanted[name], firing_rates(twin, kept)[name]))
    return RateMatched(twin, tuple(found))


def firing_rates(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Spikes per neuron and time step of every hidden spiking layer, by its module path.

    Raises SignatureError if there are no images.
    """
    means = _mean(model, batches, lambda step: step.spikes.double().sum() / step.spikes[:, 0].numel())
    return {name: mean.item() for name, mean in means.items()}


def _threshold_for(model: nn.Module, name: str, rate: float, batches: list[Tensor], tolerance: float) -> float:
    """Give one layer of `model`, in place, the threshold at which it fires at `rate`, and return it."""
    layer = hidden_neurons(model)[name]
    inputs = [_currents(model, images)[name] for images in batches]
    size = sum(currents.numel() for currents in inputs)

    def fires(threshold: float) -> float:
        twin = ThresholdLIF.from_lif(layer, inputs[0].new_full((1,), threshold), learn=False)
        replace_layer(model, name, twin)
        with torch.no_grad():
            return sum(twin.trajectory(currents).spikes.double().sum().item() for currents in inputs) / size

    low, high = 0.0, 2 * layer.dynamics.threshold
    while fires(high) > rate and high < _HIGHEST:
        low, high = high, 2 * high
    middle, reached = high, fires(high)
    for _ in range(_HALVINGS):
        if abs(reached - rate) < tolerance / 2 * rate:  # twice as close as asked: rounding elsewhere may move a spike
            return middle
        middle = (low + high) / 2
        reached = fires(middle)
        low, high = (middle, high) if reached > rate else (low, middle)
    raise ConfigError(
        f"the layer {name} fires {reached:.4f} spikes per neuron and step at the threshold {middle:.4g} and cannot be "
        f"brought to {rate:.4f} by one positive threshold; take more images, another network or a wider tolerance"
    )


_HIGHEST, _HALVINGS = 1e6, 40


def _currents(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What every hidden spiking layer is given, [T, B, *N], in the order of the forward pass."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: found.update({name: given[0]})

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in hidden_neurons(model).items()]
    try:
        with evaluating(model), torch.no_grad():
            model(images.to(device_of(model, images)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _mean(model: nn.Module, batches: Batches, measure: Callable[[Step], Tensor]) -> dict[str, Tensor]:
    """The mean over all images of a measure of every hidden layer's run, which `measure` sums over a batch."""
    totals: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.no_grad():
        for images in map(_images, batches):
            if len(images) == 0:
                continue
            for name, step in trajectories(model, images.to(device_of(model, images))).items():
                found = measure(step)
                totals[name] = totals[name] + found if name in totals else found
            count += len(images)
    if count == 0:
        raise SignatureError("a control got no images; pass batches of clean images")
    return {name: total / count for name, total in totals.items()}


def _images(batch: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


def _adaptive(model: nn.Module) -> dict[str, TALIF]:
    found = {name: layer for name, layer in hidden_neurons(model).items() if isinstance(layer, TALIF)}
    if not found:
        raise SignatureError(
            f"a control for adaptation got a {type(model).__name__} without TA-LIF layers; make one with "
            "hosnn.homeostatic(model, signature)"
        )
    return found
