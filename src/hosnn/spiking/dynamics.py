"""One time step of a leaky integrate-and-fire neuron whose threshold is constant (LIF), adaptive (TA-LIF) or static.

Pure functions of tensors: the specification that every faster backend equals.
Shapes: B batch, N neuron dimensions (any number).  Potentials are dimensionless: 1 is the resting threshold.
Time constants count time steps.
"""

import torch
from torch import Tensor

from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.state import Dynamics, Reset, State, StaticThreshold, Step, Threshold


def resting(like: Tensor, dynamics: Dynamics) -> State:
    """The state before the first step: v = 0, θ = θ[0], a = 0, in the shape, dtype and device of `like` [B, *N]."""
    zeros = torch.zeros_like(like)
    return State(zeros, torch.full_like(like, dynamics.threshold), zeros)


def neuron_step(
    current: Tensor, state: State, threshold: Threshold, dynamics: Dynamics, rule: GradientRule
) -> tuple[Step, State]:
    """The step of a neuron with this kind of threshold, given at this time step (`threshold_at`)."""
    if threshold is None:
        return lif_step(current, state, dynamics, rule)
    if isinstance(threshold, StaticThreshold):
        return static_threshold_step(current, state, threshold.values, dynamics, rule)
    return talif_step(current, state, threshold.signature, threshold.adaptation, dynamics, rule)


def lif_step(current: Tensor, state: State, dynamics: Dynamics, rule: GradientRule) -> tuple[Step, State]:
    """One step of a leaky integrate-and-fire neuron.

        u[t] = (1 - 1/τ_m) v[t-1] + I[t]
        s[t] = 1 if u[t] > θ else 0
        v[t] = u[t] (1 - s[t])   (hard reset)   or   u[t] - θ s[t]   (soft)
        a[t] = (1 - 1/τ_s) a[t-1] + s[t]/τ_s

    current  I[t], synaptic input  [B, *N]  potential
    returns  the step and the next state; gradients as `rule` says.
    """
    membrane = dynamics.membrane_decay * state.membrane + current
    return _fire_and_reset(membrane, state.threshold, state, dynamics, rule)


def talif_step(
    current: Tensor,
    state: State,
    signature: Tensor,
    adaptation: Tensor,
    dynamics: Dynamics,
    rule: GradientRule,
) -> tuple[Step, State]:
    """One step of a neuron whose threshold opposes the drift of its membrane from its clean-data signature.

        u[t] = (1 - 1/τ_m) v[t-1] + I[t]
        θ[t] = θ[t-1] + k (u[t] - u*[t])
        s[t] = 1 if u[t] > θ[t] else 0,   then reset and trace as in `lif_step`

    current     I[t], synaptic input                            [B, *N]  potential
    signature   u*[t], mean u[t] on clean data (`calibrate`)      [*N]   potential
    adaptation  k >= 0, θ's rate per unit of error; 0 = plain LIF  [*N]  per step
    returns     the step and the next state; gradients as `rule` says.
    Source: TA-LIF, arXiv:2308.10373; authors' code functions/tsslbp.py.
    """
    membrane = dynamics.membrane_decay * state.membrane + current
    threshold = state.threshold + adaptation * (membrane - signature)
    return _fire_and_reset(membrane, threshold if rule.threshold else threshold.detach(), state, dynamics, rule)


def static_threshold_step(
    current: Tensor, state: State, threshold: Tensor, dynamics: Dynamics, rule: GradientRule
) -> tuple[Step, State]:
    """As `lif_step`, with a threshold of its own for each time step (and neuron), which does not react to the membrane.

    threshold  θ[t], broadcastable to [B, *N], potential; its gradient is cut where `rule` cuts TA-LIF's
    """
    membrane = dynamics.membrane_decay * state.membrane + current
    threshold = threshold.expand_as(membrane)
    return _fire_and_reset(membrane, threshold if rule.threshold else threshold.detach(), state, dynamics, rule)


def _fire_and_reset(
    membrane: Tensor, threshold: Tensor, state: State, dynamics: Dynamics, rule: GradientRule
) -> tuple[Step, State]:
    """Spikes, reset and trace from u[t] and θ[t]."""
    backward_distance = membrane - dynamics.threshold if rule.at_resting_threshold else None
    spikes = rule.surrogate_at(dynamics.threshold).spike(membrane - threshold, backward_distance)
    before_reset = membrane if rule.leak else membrane.detach()
    if dynamics.reset is Reset.HARD:
        after_reset = before_reset * (1 - (spikes if rule.reset else spikes.detach()))
    else:
        drop = threshold * spikes
        after_reset = before_reset - (drop if rule.reset else drop.detach())
    trace = dynamics.synaptic_decay * state.trace + spikes / dynamics.tau_synapse
    return Step(membrane, threshold, spikes, trace), State(after_reset, threshold, trace)
