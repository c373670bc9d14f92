"""What `hosnn inspect` finds in a network, as values: activity, errors of the membrane, stability, energy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hosnn.errors import ConfigError
from hosnn.results.document import (
    Amount,
    ContentHash,
    Count,
    Document,
    Fraction,
    Machine,
    Name,
    Number,
    NumberOrNaN,
    Versions,
)


@dataclass(frozen=True, kw_only=True)
class MembraneError:
    """Mean squares over neurons and images of a layer's error, one for each time step; potentials squared."""

    from_signature: tuple[Amount, ...] = ()
    """(u - u*)² at each step, u* the layer's signature; empty for a layer without one."""
    from_clean: tuple[Amount, ...] = ()
    """(u - u clean)² at each step, between the disturbed and the clean run of the same network on the same image; empty
    for the clean run."""


@dataclass(frozen=True, kw_only=True)
class LayerActivity:
    """One spiking layer under one condition."""

    layer: Name
    """Module path of the layer."""
    rate: Fraction
    """Spikes per neuron and time step."""
    silent: Fraction
    """Share of neurons that fire on no image."""
    saturated: Fraction
    """Share of neurons that fire at 95 % or more of all time steps of all images."""
    threshold: tuple[Number, ...]
    """Mean threshold over neurons and images, at each time step."""
    lowest_threshold: Number
    """Lowest threshold of any neuron on any image at any time step."""
    highest_threshold: Number
    """Highest threshold of any neuron on any image at any time step."""
    error: MembraneError
    """Of the network as it is."""
    error_without_adaptation: MembraneError | None = None
    """Of the network with k = 0 in all layers, on the same images; null for a layer that does not adapt."""
    error_layer_alone: MembraneError | None = None
    """Of this layer with k = 0 on the currents it receives in the network as it is; null for a layer that does not
    adapt."""

    def removed(self, kind: str) -> float:
        """Share of the error's mean square over all steps that the layer's own feedback removes; NaN if there is none.

            1 - sum_t error[t] / sum_t error_layer_alone[t]      negative: the feedback adds error

        kind  from_signature or from_clean
        """
        if self.error_layer_alone is None:
            return math.nan
        before = sum(getattr(self.error_layer_alone, kind))
        return 1 - sum(getattr(self.error, kind)) / before if before > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Condition:
    """All images under one disturbance, or none."""

    name: Name
    """clean, the name of an attack, or the size of an offset."""
    accuracy: Fraction
    """Share of images classified correctly."""
    layers: tuple[LayerActivity, ...]
    """In the order of the network."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Numbers of neurons by the stability of their linearised error (docs/theory.md); they add up to the layer."""

    inside: Count
    """Stable."""
    outside: Count
    """Not stable."""
    open_loop: Count
    """Firing, but the threshold acts on nothing."""
    silent: Count
    """Never firing on these images: no feedback, no guarantee."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveLayer:
    """A layer whose thresholds adapt: learned k, and stability at the firing rates on clean images."""

    layer: Name
    """Module path of the layer."""
    neurons: Count
    """Number of neurons."""
    lowest_adaptation: Amount
    """Smallest k."""
    mean_adaptation: Amount
    """Mean k over neurons."""
    highest_adaptation: Amount
    """Largest k."""
    frozen_rate: Stability
    """If the firing rate did not respond to the threshold."""
    responding_rate: Stability
    """With the response of the rate estimated from how many membranes lie near their threshold."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far mean membranes on a data set are from the stored signature: mean squares over neurons and steps."""

    dataset: Name
    """Name of the data set."""
    images: Count
    """Number of images."""
    mean_square: Mapping[str, Amount]
    """By layer: (mean over images of u - u*)², with k = 0 in all layers, as when signatures are recorded."""
    by_chance: Mapping[str, Amount]
    """By layer: what so few images give even without drift, the variance of u over images divided by their number."""

    def over_chance(self, layer: str) -> float:
        """Drift of a layer over what chance gives; infinite where chance gives none, NaN for one image, whose spread is
        unknown."""
        if self.images == 1:
            return math.nan
        measured, chance = self.mean_square[layer], self.by_chance[layer]
        if chance > 0:
            return measured / chance
        return math.inf if measured > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class SynapticOperations:
    """Operations of one layer of weights, per image, summed over time steps."""

    layer: Name
    """Module path of the layer."""
    macs: Amount
    """Multiply-accumulates for nonzero analogue inputs and nonzero weights."""
    acs: Amount
    """Accumulates for spikes and nonzero weights."""
    dense: Amount
    """Operations if no input and no weight were zero."""


@dataclass(frozen=True, kw_only=True)
class NeuronWork:
    """Arithmetic of neurons, per image, beside what NeuroBench counts."""

    multiplies: Amount
    """Multiplications."""
    adds: Amount
    """Additions and subtractions."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Operations per image under one condition, and an estimate of their energy."""

    neurobench: Mapping[str, Amount]
    """NeuroBench's metrics by its names; Footprint in bytes."""
    synapses: tuple[SynapticOperations, ...]
    """By layer of weights."""
    trace_filter: NeuronWork
    """The synaptic filter of all neurons."""
    adaptation: NeuronWork
    """Thresholds that adapt: 1 multiplication and 2 additions per neuron and time step."""
    signature_bytes: Count
    """Memory of signatures and k, part of Footprint."""
    picojoule: Mapping[str, Amount]
    """Estimated energy by part; ann: the same layers once with 32-bit multiply-accumulates, for comparison."""
    rate: Fraction
    """Spikes per neuron and time step over all spiking layers."""
    break_even_rate: NumberOrNaN
    """Rate above which a quantised ANN needs less energy, 0.057 at T = 5 (arXiv 2409.08290); null for other T."""


@dataclass(frozen=True, kw_only=True)
class Inspection(Document):
    """What `hosnn inspect` finds in one network."""

    FORMAT: ClassVar[str] = "hosnn-inspection-1"
    KIND: ClassVar[str] = "inspection"
    ADVICE: ClassVar[str] = "write it anew with `hosnn inspect --out`"

    model: Name
    """Name of the model."""
    model_sha256: ContentHash
    """SHA-256 of its parameters and buffers."""
    dataset: Name
    """Name of the data set."""
    dataset_sha256: ContentHash
    """SHA-256 of its decoded content; empty for tensors."""
    images: Count
    """Number of images."""
    steps: Count
    """Number of time steps T."""
    seed: int
    """Seed of attacks and offsets."""
    conditions: tuple[Condition, ...]
    """Clean first, then each disturbance."""
    adaptive: tuple[AdaptiveLayer, ...]
    """Layers whose thresholds adapt."""
    drift: tuple[Drift, ...]
    """The images inspected, then other data sets; empty if no layer has a signature."""
    energy: Energy | None
    """On clean images; null if operations could not be counted."""
    disturbed_energy: Mapping[str, Energy] = field(default_factory=dict)
    """By condition: the same on the disturbed images; empty if operations could not be counted."""
    energy_missing: str = ""
    """Why operations could not be counted."""
    versions: Versions
    """Versions of software."""
    machine: Machine
    """What it was computed on."""

    def energies(self) -> dict[str, Energy]:
        """Operations and energy by condition, clean first; empty if they could not be counted."""
        return {} if self.energy is None else {self.conditions[0].name: self.energy, **self.disturbed_energy}

    def check(self, content: Mapping[str, Any]) -> None:
        if not self.conditions:
            raise ConfigError("it has no condition, expected the clean images first")
        for layer in self.adaptive:
            for stability in (layer.frozen_rate, layer.responding_rate):
                if not 0 < layer.neurons == sum(vars(stability).values()):
                    raise ConfigError(f"the neurons of {layer.layer} do not add up to {layer.neurons}: it was changed")
        for part in self.drift:
            _check_same_names(f"drift on {part.dataset}", part.mean_square, part.by_chance)
        energies = self.energies().values()
        for entry in ("neurobench", "picojoule"):
            _check_same_names(entry, *(getattr(energy, entry) for energy in energies))


def _check_same_names(what: str, *parts: Mapping[str, float]) -> None:
    """Raises ConfigError unless all have the same names."""
    if len({frozenset(part) for part in parts}) > 1:
        raise ConfigError(f"{what} has other entries in one place than in another: it was changed")
