"""The reference backend: a neuron unrolled over time by the eager torch step.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hosnn.spiking.coding import filter_synaptic
from hosnn.spiking.dynamics import neuron_step, resting
from hosnn.spiking.gradient_rule import GradientRule, Rule, WholeLayerRule, bptt
from hosnn.spiking.state import (
    Dynamics,
    Step,
    Threshold,
    Trajectory,
    threshold_at,
    threshold_from_tensors,
    threshold_tensors,
)


class LayerRecord(NamedTuple):
    """One call of a layer: its trajectory with the autograd graph, and the constants it ran with."""

    trajectory: Trajectory
    threshold: Threshold
    dynamics: Dynamics


_records: ContextVar[list[LayerRecord] | None] = ContextVar("layer records", default=None)


@contextmanager
def record_layers() -> Iterator[list[LayerRecord]]:
    """Record every call of a layer in this thread within the context, in order.

    Outputs keep their bits; membrane and threshold carry a gradient as the layer's rule says (under a
    `WholeLayerRule`, which defines none for them, that of full BPTT).
    """
    records: list[LayerRecord] = []
    token = _records.set(records)
    try:
        yield records
    finally:
        _records.reset(token)


def is_recording() -> bool:
    """Whether this thread is inside `record_layers`."""
    return _records.get() is not None


def trajectory(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold = None,
) -> Trajectory:
    """Membrane, threshold, spikes and trace of a layer over T steps from rest; arguments as in `traces`."""
    stepwise = Trajectory(*map(torch.stack, zip(*_steps(currents, dynamics, rule, threshold), strict=True)))
    if isinstance(rule, WholeLayerRule) and torch.is_grad_enabled():
        spikes = _whole_layer_spikes(currents, dynamics, rule, threshold)
        return stepwise._replace(spikes=spikes, trace=filter_synaptic(spikes, dynamics.tau_synapse))
    return stepwise


def spikes(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold = None,
) -> Tensor:
    """The spikes of a layer over T steps from rest, s [T, B, *N] in {0, 1}; arguments as in `traces`."""
    records = _records.get()
    if records is not None:
        return _record(records, currents, dynamics, rule, threshold).spikes
    if isinstance(rule, WholeLayerRule) and torch.is_grad_enabled():
        return _whole_layer_spikes(currents, dynamics, rule, threshold)
    return torch.stack([step.spikes for step in _steps(currents, dynamics, rule, threshold)])


def traces(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold = None,
) -> Tensor:
    """The synaptic trace of a layer over T steps from rest.

    currents  I  [T, B, *N]
    returns   a  [T, B, *N]
    """
    records = _records.get()
    if records is not None:
        return _record(records, currents, dynamics, rule, threshold).trace
    if torch.is_grad_enabled():
        if isinstance(rule, WholeLayerRule):
            spikes = _whole_layer_spikes(currents, dynamics, rule, threshold)
            return filter_synaptic(spikes, dynamics.tau_synapse)
        if rule.is_local_in_time:
            return _LocalInTime.apply(currents, *threshold_tensors(threshold), dynamics, rule)  # type: ignore[no-any-return, no-untyped-call]
    return torch.stack([step.trace for step in _steps(currents, dynamics, rule, threshold)])


def _record(
    records: list[LayerRecord],
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold,
) -> Trajectory:
    recorded = trajectory(currents, dynamics, rule, threshold)
    records.append(LayerRecord(recorded, threshold, dynamics))
    return recorded


def _steps(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    threshold: Threshold,
) -> Iterator[Step]:
    state = resting(currents[0], dynamics)
    step_rule = bptt() if isinstance(rule, WholeLayerRule) else rule
    # unbind once: indexing inside the loop would make autograd build a full-size gradient per step.
    for t, current in enumerate(currents.unbind(0)):
        step, state = neuron_step(current, state, threshold_at(threshold, t), dynamics, step_rule.at(t))
        yield step


def _whole_layer_spikes(currents: Tensor, dynamics: Dynamics, rule: WholeLayerRule, threshold: Threshold) -> Tensor:
    return _WholeLayerSpikes.apply(currents, *threshold_tensors(threshold), dynamics, rule)  # type: ignore[no-any-return, no-untyped-call]


class _WholeLayerSpikes(torch.autograd.Function):
    """The spikes of `_steps`, differentiated by a rule that needs all time steps at once."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        target: Tensor | None,
        adaptation: Tensor | None,
        dynamics: Dynamics,
        rule: WholeLayerRule,
    ) -> Tensor:
        forward = trajectory(currents, dynamics, rule, threshold_from_tensors(target, adaptation))
        ctx.save_for_backward(currents, *forward)
        ctx.dynamics, ctx.rule = dynamics, rule
        return forward.spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        currents, *forward = ctx.saved_tensors
        return ctx.rule.backward(grads[0], Trajectory(*forward), currents, ctx.dynamics), None, None, None, None


class _LocalInTime(torch.autograd.Function):
    """The traces of `_steps` for rules without a path between steps, with the gradient in closed form.

    Equal to autograd through the steps, as a test shows, but keeps only the membrane, and adds the local rule for k.
    """

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        target: Tensor | None,
        adaptation: Tensor | None,
        dynamics: Dynamics,
        rule: GradientRule,
    ) -> Tensor:
        membrane, output = torch.empty_like(currents), torch.empty_like(currents)
        distance = None if rule.at_resting_threshold else torch.empty_like(currents)
        for t, step in enumerate(_steps(currents, dynamics, rule, threshold_from_tensors(target, adaptation))):
            membrane[t] = step.membrane
            output[t] = step.trace
            if distance is not None:
                torch.sub(step.membrane, step.threshold, out=distance[t])
        ctx.dynamics, ctx.rule = dynamics, rule
        ctx.adaptation_shape = None if adaptation is None else adaptation.shape
        ctx.save_for_backward(membrane, target, distance)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        membrane, signature, distance = ctx.saved_tensors
        dynamics, rule = ctx.dynamics, ctx.rule
        gradient = torch.empty_like(membrane)
        through_trace = torch.zeros_like(membrane[0])
        surrogate = rule.surrogate_at(dynamics.threshold)
        for t in reversed(range(len(membrane))):
            through_trace.mul_(dynamics.synaptic_decay).add_(grads[0][t])
            x = membrane[t] - dynamics.threshold if distance is None else distance[t]
            torch.mul(through_trace, surrogate.derivative(x).div_(dynamics.tau_synapse), out=gradient[t])
        adaptation_gradient = None
        if ctx.needs_input_grad[2] and rule.local_adaptation:
            error = membrane.mean((0, 1)) - signature.mean(0)
            adaptation_gradient = (-0.1 * gradient.sum(1).mean(0) * error).sum_to_size(ctx.adaptation_shape)
        return gradient, None, adaptation_gradient, None, None
