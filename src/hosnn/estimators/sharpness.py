"""ASSG: a surrogate whose sharpness adapts to how far each neuron has been from its threshold during the attack.

Shapes: B batch, N neuron dimensions.  The state belongs to one run of an attack and is kept beside the model.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import WrappedModel
from hosnn.identity import identified
from hosnn.spiking.gradient_rule import GradientRule, Sharpness
from hosnn.spiking.surrogate import Surrogate


@identified("AdaptiveSharpness")
@dataclass(frozen=True)
class AdaptiveSharpness:
    """ASSG: full BPTT through an arctan surrogate with a sharpness of its own per sample, neuron and time step.

    With x = u - θ, the distance to the adapted threshold, at every gradient pass of the attack:

        M <- β M + (1 - β) |x|,   D <- β D + (1 - β) ||x| - M|
        α = a / (M + ρ D + 1e-4),   a = 2 tan(π A/2) / π
        h(x) = α / (2 (1 + (π α x / 2)^2))

    vanishing  A/2, bound on the expected degree of gradient vanishing, in (0, 0.5); larger is sharper
    relax      ρ
    momentum   β, in [0, 1)
    Raises ConfigError for values outside.
    Source: Wang et al., arXiv:2512.22522, and its code (β = 0.9, ρ = 1.5, A/2 = 0.425).
    Ours: the first pass sets M = |x|, D = 0, where the code starts from M = 1, a scale that need not be the network's.
    """

    vanishing: float = 0.425
    relax: float = 1.5
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.vanishing < 0.5 or not 0 <= self.momentum < 1 or not 0 <= self.relax < math.inf:
            raise ConfigError(
                f"AdaptiveSharpness got vanishing = {self.vanishing!r}, relax = {self.relax!r}, momentum = "
                f"{self.momentum!r}; expected vanishing in (0, 0.5), e.g. 0.425, relax >= 0 and momentum in [0, 1)"
            )


Moments = dict[tuple[str, int, int | tuple[int, ...]], tuple[Tensor, Tensor, Tensor]]
"""M and D [B, *N], and the number of passes so far [B], by layer, call of the layer, and time step.

Fused kernels keep all time steps of a layer in one entry, with the shape (T, *N) in place of the step: M and D
[T, B, *N]."""


class DistanceTracker:
    """The running moments M and D of |x| that ASSG keeps for each of `samples` samples during one run of an attack.

    vanishing  A/2 of each sample [B]; None: the estimator's own for all
    A run's moments have a row for each of its `rows`, positions of samples; None: for all samples in their order.
    """

    def __init__(self, settings: AdaptiveSharpness, samples: int, vanishing: Tensor | None = None) -> None:
        self.settings, self.samples = settings, samples
        self.vanishing = torch.tensor([settings.vanishing], dtype=torch.float64) if vanishing is None else vanishing
        self._moments: Moments = {}
        self._calls: dict[str, int] = {}
        self._chosen: Tensor | None = None
        self._rows: Tensor | None = None
        self._updating = True

    @contextmanager
    def forward_pass(
        self, chosen: Tensor | None, count: int, moments: "Moments | None" = None, rows: Tensor | None = None
    ) -> Iterator[None]:
        """The context of one forward pass over the samples of the rows `chosen` (None: all).

        count    samples in the batch
        moments  where to keep the moments; None: in this object
        Raises ConfigError if the batch has another number of samples than expected.
        """
        expected = (self.samples if rows is None else len(rows)) if chosen is None else len(chosen)
        if count != expected:
            raise ConfigError(
                f"ASSG keeps state for each sample, but an attack on {expected} samples called the model with {count}; "
                "an attack that continues on part of its batch must call subset(model, chosen)"
            )
        before = self._rows, self._chosen, self._moments, self._calls
        self._rows, self._chosen, self._calls = rows, chosen, {}
        self._moments = self._moments if moments is None else moments
        try:
            yield
        finally:
            self._rows, self._chosen, self._moments, self._calls = before

    @property
    def _count(self) -> int:
        """Rows of the moments."""
        return self.samples if self._rows is None else len(self._rows)

    @contextmanager
    def state_frozen(self) -> Iterator[None]:
        """A context in which passes do not update the moments."""
        before, self._updating = self._updating, False
        try:
            yield
        finally:
            self._updating = before

    def call_number(self, layer: str, step: int) -> int:
        """Which call of the layer within this forward pass a time step belongs to: 0, 1, ..; step 0 begins a call."""
        if step == 0:
            self._calls[layer] = self._calls.get(layer, -1) + 1
        return self._calls.get(layer, 0)

    def sharpness(self, layer: str, step: int, x: Tensor, call: int = 0) -> Tensor:
        """α for the distances x of one layer and time step, [B, *N] -> [B, *N]; updates the moments by |x|.

        call  number of the layer's call within the forward pass, for networks that use it in several places
        """
        distance, key = x.abs(), (layer, call, step)
        if key not in self._moments:
            empty = distance.new_zeros((self._count, *distance.shape[1:]))
            self._moments[key] = (empty, empty.clone(), distance.new_zeros(self._count))
        stored = self._moments[key]
        mean, deviation, passes = stored if self._chosen is None else (values[self._chosen] for values in stored)
        keep = (self.settings.momentum if self._updating else 1.0) * (passes > 0).to(distance.dtype)
        keep = keep.view(-1, *[1] * (distance.dim() - 1))
        mean = torch.lerp(distance, mean, keep)
        deviation = torch.lerp((distance - mean).abs(), deviation, keep)
        if self._updating:
            for values, updated in zip(stored, (mean, deviation, passes + 1), strict=True):
                values[slice(None) if self._chosen is None else self._chosen] = updated
        return self._scale(distance) / (mean + self.settings.relax * deviation + 1e-4)

    def run_sharpness(
        self, layer: str, shape: tuple[int, ...], allocate: Callable[[int], tuple[Tensor, Tensor]]
    ) -> Sharpness:
        """What a fused kernel needs to compute α and update the moments over all time steps of a layer, shape (T, *N).

        allocate  number of rows -> two arrays of zeros for M and D
        """
        key = (layer, self.call_number(layer, 0), shape)
        if key not in self._moments:
            mean, deviation = allocate(self._count)
            self._moments[key] = (mean, deviation, mean.new_zeros(self._count))
        mean, deviation, passes = self._moments[key]
        rows = torch.arange(self._count, device=mean.device)
        rows = rows if self._chosen is None else rows[self._chosen]
        keep = (self.settings.momentum if self._updating else 1.0) * (passes[rows] > 0).to(mean.dtype)
        if self._updating:
            passes[rows] += 1
        scale = self._scale(mean.new_zeros(1)).flatten()
        return Sharpness(mean, deviation, rows, keep, scale, self.settings.relax, self._updating)

    def _scale(self, like: Tensor) -> Tensor:
        """a, [B, 1, ..] or [1, 1, ..]."""
        vanishing = self.vanishing.to(like)
        for positions in (self._rows, self._chosen):
            if positions is not None and len(vanishing) > 1:
                vanishing = vanishing[positions]
        return (2 / math.pi * (math.pi * vanishing).tan()).view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class AdaptiveSharpnessModel(WrappedModel):
    """A model differentiated by ASSG.

    tracker  the settings and state that the model's layers share
    rows     positions, among the tracker's samples, of the samples of a run (None: all)
    chosen   positions, among the rows, of the samples in a batch (None: all)
    moments  M and D of the rows, kept for one run of an attack
    """

    tracker: DistanceTracker
    chosen: Tensor | None = None
    moments: Moments = field(default_factory=dict, compare=False)
    rows: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        with self.tracker.forward_pass(self.chosen, len(x), self.moments, self.rows):
            return self.model(x)

    def without_state(self) -> Self:
        return replace(self, moments={})

    def subset(self, chosen: Tensor, /) -> Self:
        """Raises ConfigError for samples that are chosen several times in the middle of a run."""
        rows = torch.arange(self.tracker.samples, device=chosen.device) if self.rows is None else self.rows
        positions = torch.arange(len(rows), device=chosen.device) if self.chosen is None else self.chosen
        positions = positions[chosen]
        if len(set(positions.tolist())) == len(positions):
            return replace(self, chosen=positions)
        if self.moments:
            raise ConfigError(
                "ASSG got one sample several times, whose moments cannot be updated at once; expected each sample "
                "once: repeat positions only in subset(without_state(model), chosen), for a new run"
            )
        return replace(self, rows=rows[positions], chosen=None, moments={})  # each copy has moments of its own

    @contextmanager
    def state_frozen(self) -> Iterator[None]:
        with self.tracker.state_frozen():
            yield


@dataclass(frozen=True, eq=False)
class AdaptiveSharpnessRule(GradientRule):
    """The gradient rule of one layer during one run of an attack."""

    layer: str = ""
    tracker: DistanceTracker | None = None

    def sharpness(self, shape: tuple[int, ...], allocate: Callable[[int], tuple[Tensor, Tensor]]) -> Sharpness | None:
        assert self.tracker is not None
        return self.tracker.run_sharpness(self.layer, shape, allocate)

    def at(self, step: int) -> GradientRule:
        assert self.tracker is not None
        call = self.tracker.call_number(self.layer, step)
        return GradientRule(_SurrogateAtStep(self.tracker, self.layer, step, call))


@dataclass(frozen=True, eq=False)
class _SurrogateAtStep(Surrogate):
    tracker: DistanceTracker
    layer: str
    step: int
    call: int

    def in_units_of(self, threshold: float) -> Surrogate:
        return self  # its sharpness follows the distances, whatever their unit

    def prepared(self, x: Tensor) -> Surrogate:
        return _ArctanOfSharpness(self.tracker.sharpness(self.layer, self.step, x, self.call))


@dataclass(frozen=True, eq=False)
class _ArctanOfSharpness(Surrogate):
    sharpness: Tensor  # α [B, *N]

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + (math.pi / 2 * self.sharpness * x).square()).reciprocal() * (self.sharpness / 2)
