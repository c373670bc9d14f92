"""Sums over images from which an inspection is made, so that only one block of images is in memory.

Shapes: T time, B batch, N neuron dimensions.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hosnn.inspection.recording import LayerRecord
from hosnn.results.inspection import LayerActivity, MembraneError
from hosnn.spiking.state import Dynamics, Reset, Trajectory

SATURATED = 0.95
"""Share of time steps at which a neuron fires that counts as saturated."""

NEAR = 0.1
"""Half the width, in units of the resting threshold, of the window in which membranes count as near their threshold."""


@dataclass
class ErrorSums:
    """Sums of squares over images and neurons at each step [T]; None: there was nothing to compare with."""

    from_signature: Tensor | None = None
    from_clean: Tensor | None = None

    def add(self, membrane: Tensor, signature: Tensor | None, clean: Tensor | None) -> None:
        """membrane, clean  [T, B, *N];  signature  [T, *N]"""
        if signature is not None:
            self.from_signature = _added(self.from_signature, _per_step((membrane - signature[:, None]).square()))
        if clean is not None:
            self.from_clean = _added(self.from_clean, _per_step((membrane - clean).square()))

    def mean(self, count: int) -> MembraneError:
        return MembraneError(from_signature=_over(self.from_signature, count), from_clean=_over(self.from_clean, count))


@dataclass
class LayerSums:
    """Sums over images of one spiking layer under one condition.

    spikes, near  numbers of spikes, and of membranes near their threshold, over steps and images  [*N] float64
    membrane, squares  sums of u and u² over images  [T, *N] float64
    threshold     sum over images and neurons  [T] float64
    updates       changes of the membrane after reset, as NeuroBench counts them
    """

    images: int = 0
    updates: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")
    spikes: Tensor | None = None
    near: Tensor | None = None
    membrane: Tensor | None = None
    squares: Tensor | None = None
    threshold: Tensor | None = None
    error: ErrorSums = field(default_factory=ErrorSums)
    without_adaptation: ErrorSums = field(default_factory=ErrorSums)
    alone: ErrorSums = field(default_factory=ErrorSums)

    def add(self, record: LayerRecord, dynamics: Dynamics, moments: bool = True) -> None:
        """Activity of one block of images; errors are added to the fields for them.

        moments  also `near`, `membrane` and `squares`
        """
        run = record.trajectory
        self.images += run.spikes.shape[1]
        self.updates += _updates(run, dynamics)
        self.lowest = min(self.lowest, float(run.threshold.min()))
        self.highest = max(self.highest, float(run.threshold.max()))
        self.spikes = _added(self.spikes, run.spikes.sum((0, 1)).double())
        self.threshold = _added(self.threshold, _per_step(run.threshold))
        if moments:
            near = (run.membrane - run.threshold).abs() < NEAR * dynamics.threshold
            self.near = _added(self.near, near.sum((0, 1)).double())
            self.membrane = _added(self.membrane, run.membrane.sum(1).double())
            self.squares = _added(self.squares, run.membrane.square().sum(1).double())

    @property
    def rates(self) -> Tensor:
        """Spikes per time step of every neuron [*N] float64."""
        assert self.spikes is not None and self.threshold is not None
        return self.spikes / (self.images * len(self.threshold))

    def activity(self, name: str, adapts: bool) -> LayerActivity:
        rates, count = self.rates, self.images * self.rates.numel()
        return LayerActivity(
            layer=name,
            rate=float(rates.mean()),
            silent=float((rates == 0).double().mean()),
            saturated=float((rates >= SATURATED).double().mean()),
            threshold=_over(self.threshold, count),
            lowest_threshold=self.lowest,
            highest_threshold=self.highest,
            error=self.error.mean(count),
            error_without_adaptation=self.without_adaptation.mean(count) if adapts else None,
            error_layer_alone=self.alone.mean(count) if adapts else None,
        )


def _updates(run: Trajectory, dynamics: Dynamics) -> int:
    """The first step's neurons, then those whose membrane after reset changed (MembraneUpdates of NeuroBench 2.2)."""
    if dynamics.reset is Reset.HARD:
        after = run.membrane * (1 - run.spikes)
    else:
        after = run.membrane - run.threshold * run.spikes
    return after[0].numel() + int(torch.count_nonzero(after[1:] != after[:-1]))


def _per_step(values: Tensor) -> Tensor:
    """Sums over images and neurons, [T, B, *N] -> [T] float64; sums over neurons in the precision of the values."""
    return values.flatten(2).sum(2).double().sum(1)


def _added(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value


def _over(total: Tensor | None, count: int) -> tuple[float, ...]:
    return () if total is None else tuple((total / count).tolist())
