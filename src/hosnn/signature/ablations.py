"""Ablations of homeostasis: copies of a network that keep one of its effects and drop the others.

TA-LIF changes several things at once: the weights, which are trained along with k; thresholds that differ between
neurons and time steps; thresholds that react to the input; and firing rates.  Each function here returns a new network
and leaves its argument unchanged:

without_adaptation         the weights alone: k = 0
frozen_at_mean_threshold   the weights and the mean thresholds, which no longer react to the input
static_thresholds          LIF whose neurons each learn a threshold of their own, to be trained like TA-LIF
rate_matched               LIF with the firing rates of another network
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
from hosnn.spiking.state import Trajectory

HIGHEST_THRESHOLD, HALVINGS = 1e6, 40
"""Limits of the search for the threshold of a firing rate."""

M = TypeVar("M", bound=nn.Module)
Batches = Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]
"""Batches of images x [B, ...], or (x, ...) with x first."""


def without_adaptation(model: M) -> M:
    """A copy with k = 0: plain LIF neurons, with the weights that were trained together with adaptation.

    Raises SignatureError if no layer adapts.
    """
    ablated = copy.deepcopy(model)
    for layer in _adaptive(ablated).values():
        with torch.no_grad():
            layer.adaptation.zero_()
    return ablated


def frozen_at_mean_threshold(model: M, batches: Batches, over_time: bool = True) -> M:
    """A copy whose adapting thresholds are constants: their means over the images of `batches`.

        θ̄[t] = mean over images of θ[t]     or, over_time = False,     θ̄ = mean over images and t of θ[t]

    Each neuron has its own θ̄, which may be negative; no threshold reacts to the input any more.
    Raises SignatureError if no layer adapts or there are no images.
    """
    ablated = copy.deepcopy(model)
    layers = _adaptive(ablated)
    means = _mean(model, batches, lambda trajectory: trajectory.threshold.double().sum(1))
    for name, layer in layers.items():
        mean = means[name] if over_time else means[name].mean(0, keepdim=True)
        mean = mean.to(layer.signature.dtype)
        replace_layer(ablated, name, ThresholdLIF.from_lif(layer, mean, learn=False, beyond=layer.beyond))
    return ablated


def static_thresholds(model: M, images: Tensor, share: Share = Share.NEURON, rule: Rule | None = None) -> M:
    """A copy whose hidden LIF layers have learnable thresholds, initially the layers' own: the same outputs.

    images  a few inputs of the network, from which the shapes of its layers are taken
    rule    the gradient rule of the copy's hidden layers; None keeps their own
    Train it like a homeostatic network, to separate "thresholds adapt" from "each neuron has its own threshold".
    Raises SignatureError for adapting layers, ConfigError if the rule gives thresholds no gradient.
    """
    not_lif = [name for name, layer in hidden_neurons(model).items() if isinstance(layer, (TALIF, ThresholdLIF))]
    if not_lif:
        raise SignatureError(
            f"static_thresholds got layers that are not plain LIF: {not_lif}; start from a LIF network, or use "
            "frozen_at_mean_threshold to keep the thresholds that adaptation reached"
        )
    with evaluating(model), torch.no_grad():
        of_images = trajectories(model, images.to(device_of(model, images)))
    ablated = copy.deepcopy(model)
    for name, layer in hidden_neurons(ablated).items():
        layer.rule = rule or layer.rule
        membrane = of_images[name].membrane
        thresholds = membrane.new_full((1, *share.shape(membrane.shape[2:])), layer.dynamics.threshold)
        replace_layer(ablated, name, ThresholdLIF.from_lif(layer, thresholds))
    return ablated


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
    """A network with thresholds chosen by `rate_matched`, and its firing rates."""

    model: M
    rates: tuple[LayerRate, ...]


def rate_matched(model: M, target: nn.Module, batches: Batches, tolerance: float = 0.01) -> RateMatched[M]:
    """A copy of a LIF network whose hidden layers have the firing rates of those of `target` on the same images.

    One threshold per layer, by bisection, from the first layer to the last, each with the input from the layers already
    matched.  The weights are those of `model`: it separates "homeostasis" from "fewer (or more) spikes".
    tolerance  the largest relative deviation of any layer's rate
    Raises SignatureError if the networks' layers differ or those of `model` adapt or there are no images, ConfigError
    if no positive threshold reaches a rate (a rate of 0 is never reached).
    """
    layers, target_layers = hidden_neurons(model), hidden_neurons(target)
    if set(layers) != set(target_layers) or any(isinstance(layer, TALIF) for layer in layers.values()):
        raise SignatureError(
            f"rate_matched got networks with the spiking layers {sorted(layers)} and {sorted(target_layers)}; expected "
            "a LIF network, without adaptation, and one with the same layers"
        )
    nonempty = [images for images in map(_images, batches) if len(images)]
    targets, before = firing_rates(target, nonempty), firing_rates(model, nonempty)
    matched, rates = copy.deepcopy(model), []
    for name in _currents(model, nonempty[0]):  # in the order of the forward pass
        threshold = _match_rate(matched, name, targets[name], nonempty, tolerance)
        achieved = firing_rates(matched, nonempty)[name]
        rates.append(LayerRate(name, threshold, before[name], targets[name], achieved))
    return RateMatched(matched, tuple(rates))


def firing_rates(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Spikes per neuron and time step of every hidden spiking layer, by its module path.

    Raises SignatureError if there are no images.
    """
    means = _mean(model, batches, lambda layer: layer.spikes.double().sum() / layer.spikes[:, 0].numel())
    return {name: mean.item() for name, mean in means.items()}


def _match_rate(model: nn.Module, name: str, rate: float, batches: list[Tensor], tolerance: float) -> float:
    """Set one layer of `model`, in place, to the threshold at which it fires at `rate`; returns the threshold."""
    layer = hidden_neurons(model)[name]
    inputs = [_currents(model, images)[name] for images in batches]
    size = sum(currents.numel() for currents in inputs)

    def rate_at(threshold: float) -> float:
        replacement = ThresholdLIF.from_lif(layer, inputs[0].new_full((1,), threshold), learn=False)
        replace_layer(model, name, replacement)
        with torch.no_grad():
            return sum(replacement.trajectory(currents).spikes.double().sum().item() for currents in inputs) / size

    low, high = 0.0, 2 * layer.dynamics.threshold
    while rate_at(high) > rate and high < HIGHEST_THRESHOLD:
        low, high = high, 2 * high
    middle, reached = high, rate_at(high)
    for _ in range(HALVINGS):
        # Half the tolerance, because rounding elsewhere may move a spike.
        if abs(reached - rate) < tolerance / 2 * rate:
            return middle
        middle = (low + high) / 2
        reached = rate_at(middle)
        low, high = (middle, high) if reached > rate else (low, middle)
    raise ConfigError(
        f"the layer {name} fires {reached:.4f} spikes per neuron and step at the threshold {middle:.4g} and cannot be "
        f"brought to {rate:.4f} by one positive threshold; take more images, another network or a wider tolerance"
    )


def _currents(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The input currents of every hidden spiking layer, [T, B, *N], in the order of the forward pass."""
    currents: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: currents.update({name: arguments[0]})

    handles = [layer.register_forward_pre_hook(hook_for(name)) for name, layer in hidden_neurons(model).items()]
    try:
        with evaluating(model), torch.no_grad():
            model(images.to(device_of(model, images)))
    finally:
        for handle in handles:
            handle.remove()
    return currents


def _mean(model: nn.Module, batches: Batches, measure: Callable[[Trajectory], Tensor]) -> dict[str, Tensor]:
    """The mean over all images, by layer, of what `measure` sums over a batch of images from a layer's trajectory."""
    totals: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.no_grad():
        for images in map(_images, batches):
            if len(images) == 0:
                continue
            for name, trajectory in trajectories(model, images.to(device_of(model, images))).items():
                batch_sum = measure(trajectory)
                totals[name] = totals[name] + batch_sum if name in totals else batch_sum
            count += len(images)
    if count == 0:
        raise SignatureError("an ablation got no images; pass batches of clean images")
    return {name: total / count for name, total in totals.items()}


def _images(batch: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


def _adaptive(model: nn.Module) -> dict[str, TALIF]:
    adaptive = {name: layer for name, layer in hidden_neurons(model).items() if isinstance(layer, TALIF)}
    if not adaptive:
        raise SignatureError(
            f"an ablation of adaptation got a {type(model).__name__} without TA-LIF layers; make one with "
            "hosnn.homeostatic(model, signature)"
        )
    return adaptive
