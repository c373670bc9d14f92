"""TA-LIF forward and backward in numpy, written from the equations alone: the yardstick of the torch code.

Shapes: T time, B batch, N neurons.  Everything is float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = Callable[[Array], Array]


def logistic_bump(x: Array, width: float, clamp: float = np.inf) -> Array:
    z = np.clip(np.abs(x) / width, None, clamp)
    sigma = 1 / (1 + np.exp(-z))
    return sigma * (1 - sigma) / width


SHAPES: dict[str, Shape] = {
    "Sigmoid": lambda x: logistic_bump(x, 0.2),
    "FastSigmoid": lambda x: 0.5 / 0.1 / (1 + np.abs(x) / 0.1) ** 2,
    "Arctan": lambda x: 1 / (1 + (np.pi * x) ** 2),
    "PiecewiseLinear": lambda x: np.maximum(0, 1 - np.abs(x)),
    "Rectangle": lambda x: np.where(np.abs(x) < 0.5, 1.0, 0.0),
    "Exponential": lambda x: np.exp(-np.abs(x) / 0.5),
    "StraightThrough": np.ones_like,
}
"""h(x) of every surrogate at its default width."""


@dataclass(frozen=True)
class Neuron:
    tau_membrane: float = 5.0
    tau_synapse: float = 3.0
    resting_threshold: float = 1.0
    soft_reset: bool = False


@dataclass(frozen=True)
class Run:
    """u before reset, θ, s, a over time, each [T, B, N]."""

    membrane: Array
    threshold: Array
    spikes: Array
    trace: Array


def forward(currents: Array, signature: Array, adaptation: Array, neuron: Neuron) -> Run:
    steps = len(currents)
    u, threshold, s, a = (np.zeros_like(currents) for _ in range(4))
    v, theta, trace = np.zeros_like(currents[0]), np.full_like(currents[0], neuron.resting_threshold), 0.0
    for t in range(steps):
        u[t] = (1 - 1 / neuron.tau_membrane) * v + currents[t]
        theta = theta + adaptation * (u[t] - signature[t])
        threshold[t] = theta
        s[t] = np.where(u[t] > theta, 1.0, 0.0)
        v = u[t] - theta * s[t] if neuron.soft_reset else u[t] * (1 - s[t])
        trace = (1 - 1 / neuron.tau_synapse) * trace + s[t] / neuron.tau_synapse
        a[t] = trace
    return Run(u, threshold, s, a)


def backward(
    run: Run,
    upstream: Array,
    signature: Array,
    adaptation: Array,
    neuron: Neuron,
    h: Shape,
    *,
    leak: bool = True,
    reset: bool = True,
    threshold: bool = True,
    at_resting_threshold: bool = False,
) -> tuple[Array, Array]:
    """dL/dI [T, B, N] and dL/dk [N] for L = sum(upstream · a), by the adjoint recursion derived by hand.

    With A, S, U, V, Θ the derivatives of L to a, s, u (before reset), v (after) and θ at one step:
        A[t] = g[t] + (1 - 1/τ_s) A[t+1]
        V[t] = (1 - 1/τ_m) U[t+1]
        S[t] = A[t]/τ_s - V[t] u[t]          (hard)      or  A[t]/τ_s - V[t] θ[t]        (soft)
        Θ[t] = Θ[t+1] - h S[t]               (hard)      or  Θ[t+1] - h S[t] - V[t] s[t]   (soft)
        U[t] = h S[t] + V[t] (1 - s[t]) + k Θ[t]  (hard)  or  h S[t] + V[t] + k Θ[t]       (soft)
        dI[t] = U[t],  dk = sum_{t,B} Θ[t] (u[t] - u*[t])
    """
    currents_gradient = np.zeros_like(upstream)
    adaptation_gradient = np.zeros_like(adaptation)
    trace_adjoint = np.zeros_like(upstream[0])
    membrane_adjoint = np.zeros_like(upstream[0])
    threshold_adjoint = np.zeros_like(upstream[0])
    for t in reversed(range(len(upstream))):
        u, theta, s = run.membrane[t], run.threshold[t], run.spikes[t]
        bump = h(u - (neuron.resting_threshold if at_resting_threshold else theta))
        trace_adjoint = upstream[t] + (1 - 1 / neuron.tau_synapse) * trace_adjoint
        after_adjoint = (1 - 1 / neuron.tau_membrane) * membrane_adjoint
        spike_adjoint = trace_adjoint / neuron.tau_synapse
        if reset:
            spike_adjoint = spike_adjoint - after_adjoint * (theta if neuron.soft_reset else u)
        if threshold:
            threshold_adjoint = threshold_adjoint - bump * spike_adjoint
            if reset and neuron.soft_reset:
                threshold_adjoint = threshold_adjoint - after_adjoint * s
            adaptation_gradient += (threshold_adjoint * (u - signature[t])).sum(0)
        membrane_adjoint = bump * spike_adjoint
        if leak:
            membrane_adjoint = membrane_adjoint + after_adjoint * (1.0 if neuron.soft_reset else 1 - s)
        if threshold:
            membrane_adjoint = membrane_adjoint + adaptation * threshold_adjoint
        currents_gradient[t] = membrane_adjoint
    return currents_gradient, adaptation_gradient


def tssl_backward(run: Run, upstream: Array, signature: Array, neuron: Neuron) -> tuple[Array, Array]:
    """dL/dI and dL/dk of TSSL-BP as REFERENCE.md, section 1, writes them, one number at a time.

    ga[t] = (1 - 1/τ_s) ga[t+1] + g[t];  dI[t] = ga[t]/τ_s · σ'((u[t] - 1)/0.2)/0.2, argument clamped to ±8
    dk = -0.1 mean_t(sum_B dI) mean_{t,B}(u - u*)
    """
    steps, batch, neurons = upstream.shape
    gradient = np.zeros_like(upstream)
    for b in range(batch):
        for n in range(neurons):
            ga = 0.0
            for t in range(steps - 1, -1, -1):
                ga = (1 - 1 / neuron.tau_synapse) * ga + upstream[t, b, n]
                z = min(max((run.membrane[t, b, n] - 1.0) / 0.2, -8.0), 8.0)
                sigma = 1 / (1 + np.exp(-z))
                gradient[t, b, n] = ga / neuron.tau_synapse * sigma * (1 - sigma) / 0.2
    adaptation_gradient = np.zeros(neurons)
    for n in range(neurons):
        pull = sum(gradient[t, :, n].sum() for t in range(steps)) / steps
        error = sum(run.membrane[t, b, n] - signature[t, n] for t in range(steps) for b in range(batch))
        adaptation_gradient[n] = -0.1 * pull * error / (steps * batch)
    return gradient, adaptation_gradient
