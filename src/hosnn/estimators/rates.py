"""Backward passes over a layer's whole trajectory at once: firing rates rather than spikes in time.

A rate estimator differentiates r = mean_t s[t] as a function of the mean current, and spreads the gradient evenly over
time:  dL/dI[t] = f' · mean_t dL/ds[t].  Averaging over time is written out in HART's code; the published code of the
others keeps each step's own gradient, which comes to the same for an image held constant over the steps of a plain
spike-emitting network, where the steps are summed in the end.
No paper defines how to treat an adapting threshold; we use the adapted θ wherever a paper has its constant one.
Shapes: T time, B batch, N neuron dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.spiking.gradient_rule import WholeLayerRule
from hosnn.spiking.state import Dynamics, Trajectory
from hosnn.spiking.surrogate import PiecewiseLinear, Surrogate


@identified("BPTR")
@dataclass(frozen=True)
class BPTR(WholeLayerRule):
    """Backward pass through rate: straight through where the neuron fired at least once, else zero.

    f' = 1/θ[0] if sum_t s[t] > 0 else 0.
    Source: SNN-RAT, Ding et al., NeurIPS 2022, and its code (θ = 1).
    """

    def backward(self, gradient: Tensor, trajectory: Trajectory, currents: Tensor, dynamics: Dynamics) -> Tensor:
        return _evenly(gradient, trajectory.spikes.amax(0) / dynamics.threshold)


@identified("RGA")
@dataclass(frozen=True)
class RGA(WholeLayerRule):
    """Rate gradient approximation: the slope of a piecewise linear curve of rate over mean current.

    With x = mean_t I[t] / θ, leak λ = 1 - 1/τ_m and the current scale c = 1/θ:

        f' = c γ                              0 <= x <= 1 - λ   (too weak to fire)
        f' = c (1 - γ (1 - λ)) / (1 + λ)      1 - λ < x <= 2    (the curve reaches rate 1 at x = 2)
        f' = 0                                elsewhere

    floor  γ, the slope that gives silent neurons a gradient
    Source: Bu et al., CVPR 2023, and its code (γ = 0.2, θ = 1).
    Ours: θ is the mean over time of the adapted threshold, at least a tenth of the resting one.
    """

    floor: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"RGA got floor = {self.floor!r}; expected a slope in [0, 1], e.g. 0.2")

    def backward(self, gradient: Tensor, trajectory: Trajectory, currents: Tensor, dynamics: Dynamics) -> Tensor:
        threshold = trajectory.threshold.mean(0).clamp(min=0.1 * dynamics.threshold)
        x, leak = currents.mean(0) / threshold, dynamics.membrane_decay
        firing = (x > 1 - leak) & (x <= 2)
        silent = (x >= 0) & (x <= 1 - leak)
        slope = firing * ((1 - self.floor * (1 - leak)) / (1 + leak)) + silent * self.floor
        return _evenly(gradient, slope.to(gradient.dtype) / threshold)


@identified("ActivationBackward")
@dataclass(frozen=True)
class ActivationBackward(WholeLayerRule):
    """The gradient of the ReLU network with the same weights: f' = 1/θ[0] where the mean current is positive, else 0.

    Source: conversion-based attacks, Sharmin et al., ECCV 2020 and the third member of the ensemble of Özdenizci &
    Legenstein, TMLR 2024.  They run the ReLU network forward as well; ours keeps the spiking forward and takes a unit
    as active by its mean current there, so that loss and gradient belong to one network.
    """

    def backward(self, gradient: Tensor, trajectory: Trajectory, currents: Tensor, dynamics: Dynamics) -> Tensor:
        return _evenly(gradient, (currents.mean(0) > 0).to(gradient.dtype) / dynamics.threshold)


@identified("HART")
@dataclass(frozen=True)
class HART(WholeLayerRule):
    """Hybrid of rate and temporal information: a surrogate at every step, no path between steps, then the mean.

        dL/dI[t] = mean_t (h(u[t] - θ[t]) dL/ds[t])

    surrogate  h; its width γ is the paper's knob between rate (wide) and temporal (narrow) information
    Source: Hao et al., ICLR 2024, and its code: a triangle of width 1, the carried membrane detached.
    """

    surrogate: Surrogate = PiecewiseLinear(1.0)  # noqa: RUF009  (a frozen value)

    def backward(self, gradient: Tensor, trajectory: Trajectory, currents: Tensor, dynamics: Dynamics) -> Tensor:
        surrogate = self.surrogate.in_units_of(dynamics.threshold)
        derivatives = torch.stack(
            [surrogate.derivative(x) for x in (trajectory.membrane - trajectory.threshold).unbind(0)]
        )
        return (gradient * derivatives).mean(0).expand_as(gradient)


def _evenly(gradient: Tensor, slope: Tensor) -> Tensor:
    """mean_t gradient[t] · slope, at every step.  gradient [T, B, *N], slope [B, *N] -> [T, B, *N]"""
    return (gradient.mean(0) * slope).expand_as(gradient)
