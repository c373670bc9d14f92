"""ASSG: a surrogate whose sharpness adapts to how far each neuron has been from its threshold during the attack.

Shapes: B batch, N neuron dimensions.  What is remembered belongs to one call of an attack and lives beside the model.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import Wrapped
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
"""What one run of an attack remembers, by layer, call and time step: M and D [B, *N], and passes seen [B].

Of a run as a whole by its shape (T, *N) in place of the step: M and D [T, B, *N]."""


class Memory:
    """What ASSG remembers of `samples` samples during one attack.

    vanishing  A/2 of each sample [B], if it is not the estimator's for all
    Raises ConfigError if an attack shows another number of samples than it named by `rows`.
    """

    def __init__(self, settings: AdaptiveSharpness, samples: int, vanishing: Tensor | None = None) -> None:
        self.settings, self.samples = settings, samples
        self.vanishing = torch.tensor([settings.vanishing], dtype=torch.float64) if vanishing is None else vanishing
        self._moments: Moments = {}
        self._calls: dict[str, int] = {}
        self._chosen: Tensor | None = None
        self._learning = True

    @contextmanager
    def of(self, chosen: Tensor | None, shown: int, moments: "Moments | None" = None) -> Iterator[None]:
        """For one forward, speak of some of the samples (None: of all), as one run remembers them."""
        expected = self.samples if chosen is None else len(chosen)
        if shown != expected:
            raise ConfigError(
                f"ASSG remembers each sample, but an attack on {expected} samples showed it {shown}; an attack that "
                "goes on with a part of its batch must ask for rows(model, chosen)"
            )
        before = self._chosen, self._moments, self._calls
        self._chosen, self._moments, self._calls = chosen, self._moments if moments is None else moments, {}
        try:
            yield
        finally:
            self._chosen, self._moments, self._calls = before

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Remember nothing new for a while."""
        before, self._learning = self._learning, False
        try:
            yield
        finally:
            self._learning = before

    def call(self, layer: str, step: int) -> int:
        """Which of the layer's runs within this forward a time step belongs to: 0, 1, ..; a run begins at step 0."""
        if step == 0:
            self._calls[layer] = self._calls.get(layer, -1) + 1
        return self._calls.get(layer, 0)

    def sharpness(self, layer: str, step: int, x: Tensor, call: int = 0) -> Tensor:
        """α for the distances x of one layer and time step, [B, *N] -> [B, *N]; remembers |x|.

        call  which run of the layer within a forward, if the network uses it in several places
        """
        size, key = x.abs(), (layer, call, step)
        if key not in self._moments:
            empty = size.new_zeros((self.samples, *size.shape[1:]))
            self._moments[key] = (empty, empty.clone(), size.new_zeros(self.samples))
        every = self._moments[key]
        mean, deviation, passes = every if self._chosen is None else (part[self._chosen] for part in every)
        keep = (self.settings.momentum if self._learning else 1.0) * (passes > 0).to(size.dtype)
        keep = keep.view(-1, *[1] * (size.dim() - 1))
        mean = torch.lerp(size, mean, keep)
        deviation = torch.lerp((size - mean).abs(), deviation, keep)
        if self._learning:
            for part, value in zip(every, (mean, deviation, passes + 1), strict=True):
                part[slice(None) if self._chosen is None else self._chosen] = value
        return self._scale(size) / (mean + self.settings.relax * deviation + 1e-4)

    def whole(self, layer: str, shape: tuple[int, ...], room: Callable[[int], tuple[Tensor, Tensor]]) -> Sharpness:
        """The same for a layer's run as a whole, of shape (T, *N), to be computed where the distances are.

        Raises ConfigError if a sample is shown twice in one batch.
        """
        key = (layer, self.call(layer, 0), shape)
        if key not in self._moments:
            mean, deviation = room(self.samples)
            self._moments[key] = (mean, deviation, mean.new_zeros(self.samples))
        mean, deviation, passes = self._moments[key]
        rows = torch.arange(self.samples, device=mean.device)
        rows = rows if self._chosen is None else rows[self._chosen]
        if len(set(rows.tolist())) < len(rows):
            raise ConfigError(
                "ASSG was shown one sample several times in a batch, whose memories would mix; show it once"
            )
        keep = (self.settings.momentum if self._learning else 1.0) * (passes[rows] > 0).to(mean.dtype)
        if self._learning:
            passes[rows] += 1
        scale = self._scale(mean.new_zeros(1)).flatten()
        return Sharpness(mean, deviation, rows, keep, scale, self.settings.relax, self._learning)

    def _scale(self, like: Tensor) -> Tensor:
        """a, [B, 1, ..] or [1, 1, ..]."""
        vanishing = self.vanishing.to(like)
        if self._chosen is not None and len(vanishing) > 1:
            vanishing = vanishing[self._chosen]
        return (2 / math.pi * (math.pi * vanishing).tan()).view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Remembered(Wrapped):
    """A model whose surrogates remember, and which of the remembered samples it is shown (None: all)."""

    memory: Memory
    chosen: Tensor | None = None
    moments: Moments = field(default_factory=dict, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        with self.memory.of(self.chosen, len(x), self.moments):
            return self.model(x)

    def fresh(self) -> Self:
        return replace(self, moments={})

    def rows(self, chosen: Tensor, /) -> Self:
        before = torch.arange(self.memory.samples, device=chosen.device) if self.chosen is None else self.chosen
        return replace(self, chosen=before[chosen])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        with self.memory.frozen():
            yield


@dataclass(frozen=True, eq=False)
class Sharpened(GradientRule):
    """The rule of one layer during one attack."""

    layer: str = ""
    memory: Memory | None = None

    def sharpness(self, shape: tuple[int, ...], room: Callable[[int], tuple[Tensor, Tensor]]) -> Sharpness | None:
        assert self.memory is not None
        return self.memory.whole(self.layer, shape, room)

    def at(self, step: int) -> GradientRule:
        assert self.memory is not None
        return GradientRule(_AtStep(self.memory, self.layer, step, self.memory.call(self.layer, step)))


@dataclass(frozen=True, eq=False)
class _AtStep(Surrogate):
    memory: Memory
    layer: str
    step: int
    call: int

    def prepared(self, x: Tensor) -> Surrogate:
        return _Arc(self.memory.sharpness(self.layer, self.step, x, self.call))


@dataclass(frozen=True, eq=False)
class _Arc(Surrogate):
    sharpness: Tensor  # α [B, *N]

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + (math.pi / 2 * self.sharpness * x).square()).reciprocal() * (self.sharpness / 2)
