"""A loss that sees past the last spike: the membrane of spiking output neurons beside their logits.

Shapes: T time, B batch, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hosnn.estimators.model_wrappers import network_of, unwrapped
from hosnn.identity import identified
from hosnn.nn.layers import MeanReadout, SpikingNetwork
from hosnn.nn.neurons import LIF, Emit
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.state import Dynamics


@identified("WithMembraneMargin")
@dataclass(frozen=True)
class WithMembraneMargin:
    """Run `attack`, whose own loss L is the margin, with the loss

        L + weight · scale · (max_{j != y} m_j - m_y),      m = 1/T sum_t u[t],      u[t] = (1 - 1/τ_m) u[t-1] + I[t]

    where I[t] are the currents of the output neurons: u is their membrane had they not spiked.  Logits that count a few
    spikes are flat between two counts; the membrane tells how far the next spike is.

    scale   the logit over m of a neuron under a constant current that spikes once for every θ of it (`logit_scale`)
    weight  the weight of the term; at 1 a logit and what its membrane says of it count the same
    The attack judges success by the logits alone.  A network whose logits are not the mean over time of spiking output
    neurons is attacked by the attack's own loss.
    """

    attack: Attack
    weight: float = 1.0

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        neurons = output_neurons(model)
        if neurons is None:
            return self.attack(model, x, y, rng)
        currents: list[Tensor] = []

        def keep(_: object, arguments: tuple[Tensor, ...]) -> None:
            currents[:] = arguments[:1]

        handle = neurons.register_forward_pre_hook(keep)
        attack: Any = self.attack
        try:
            loss = _WithMembrane(attack.loss, neurons.dynamics, neurons.emit, self.weight, currents)
            return replace(attack, loss=loss)(model, x, y, rng)  # type: ignore[no-any-return]
        finally:
            handle.remove()


def output_neurons(model: Model) -> LIF | None:
    """The spiking neurons whose output's mean over time is the model's logits; None for a model without such."""
    network = network_of(unwrapped(model))
    if not isinstance(network, SpikingNetwork) or not isinstance(network.readout, MeanReadout):
        return None
    last = list(network.body.children())[-1:]
    return last[0] if last and isinstance(last[0], LIF) else None


def logit_scale(dynamics: Dynamics, emit: Emit, steps: int) -> float:
    """The ratio of logit to mean membrane without spikes, over `steps` time steps of a constant current I:

    logit  = I/θ · 1/T sum_t (1 - (1 - 1/τ_s)^t)   (of traces; of spikes I/θ)
    m      = I · 1/T sum_t τ_m (1 - (1 - 1/τ_m)^t),      t = 1 .. T
    """
    times = torch.arange(1, steps + 1, dtype=torch.float64)
    trace = 1 - dynamics.synaptic_decay**times if emit is Emit.TRACE else torch.ones_like(times)
    membrane = dynamics.impulse_sums(times)
    return float(trace.mean() / membrane.mean()) / dynamics.threshold


@dataclass(frozen=True)
class _WithMembrane:
    """currents  those of the last forward pass, [T, B, K]"""

    loss: Callable[[Tensor, Tensor], Tensor]
    dynamics: Dynamics
    emit: Emit
    weight: float
    currents: list[Tensor]

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        (currents,) = self.currents
        steps = len(currents)
        # u[t] sums decayed currents, so each current enters the mean as often as it is still felt.
        left = torch.arange(steps, 0, -1, dtype=torch.float64)
        felt = self.dynamics.impulse_sums(left) / steps
        mean = torch.tensordot(felt.to(currents), currents, dims=1)
        scale = logit_scale(self.dynamics, self.emit, steps)
        return self.loss(scores, y) + self.weight * scale * margin(mean, y)
