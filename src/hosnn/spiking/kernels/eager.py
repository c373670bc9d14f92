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
from hosnn.spiking.dynamics import lif_step, resting, talif_step
from hosnn.spiking.gradient_rule import GradientRule, Rule, WholeLayer, bptt
from hosnn.spiking.state import Dynamics, Step


class LayerRecord(NamedTuple):
    """One layer's run, with its graph, and what it was held against."""

    run: Step  # [T, B, *N] each
    signature: Tensor | None  # u* [T, *N], None for plain LIF
    adaptation: Tensor | None  # k, None for plain LIF
    dynamics: Dynamics


_watcher: ContextVar[list[LayerRecord] | None] = ContextVar("watcher", default=None)


@contextmanager
def record_layers() -> Iterator[list[LayerRecord]]:
    """Collect what every layer that runs meanwhile in this thread does, in the order of the layers' calls.

    Outputs keep their bits; membrane and threshold carry a gradient as the layer's rule says (under a `WholeLayer`
    rule, which says nothing of them, that of full BPTT).
    """
    seen: list[LayerRecord] = []
    token = _watcher.set(seen)
    try:
        yield seen
    finally:
        _watcher.reset(token)


def is_recording() -> bool:
    """Whether this thread is inside `watched`."""
    return _watcher.get() is not None


def trajectory(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None = None,
    adaptation: Tensor | None = None,
) -> Step:
    """Everything a layer did: membrane, threshold, spikes and trace, each [T, B, *N]; arguments as in `traces`."""
    run = Step(*map(torch.stack, zip(*_steps(currents, dynamics, rule, signature, adaptation), strict=True)))
    if isinstance(rule, WholeLayer) and torch.is_grad_enabled():
        fired = _whole(currents, dynamics, rule, signature, adaptation)
        return run._replace(spikes=fired, trace=filter_synaptic(fired, dynamics.tau_synapse))
    return run


def spikes(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None = None,
    adaptation: Tensor | None = None,
) -> Tensor:
    """The spikes of a layer over T steps from rest, s [T, B, *N] in {0, 1}; arguments as in `traces`."""
    watcher = _watcher.get()
    if watcher is not None:
        return _watch(watcher, currents, dynamics, rule, signature, adaptation).spikes
    if isinstance(rule, WholeLayer) and torch.is_grad_enabled():
        return _whole(currents, dynamics, rule, signature, adaptation)
    return torch.stack([step.spikes for step in _steps(currents, dynamics, rule, signature, adaptation)])


def traces(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None = None,
    adaptation: Tensor | None = None,
) -> Tensor:
    """The synaptic trace of a layer over T steps from rest.

    currents    I  [T, B, *N]
    signature   u* [T, *N], None for plain LIF
    adaptation  k, broadcastable to [*N], None for plain LIF
    returns     a  [T, B, *N]
    """
    watcher = _watcher.get()
    if watcher is not None:
        return _watch(watcher, currents, dynamics, rule, signature, adaptation).trace
    if torch.is_grad_enabled():
        if isinstance(rule, WholeLayer):
            return filter_synaptic(_whole(currents, dynamics, rule, signature, adaptation), dynamics.tau_synapse)
        if rule.is_local_in_time:
            return _LocalInTime.apply(currents, signature, adaptation, dynamics, rule)  # type: ignore[no-any-return, no-untyped-call]
    return torch.stack([step.trace for step in _steps(currents, dynamics, rule, signature, adaptation)])


def _watch(
    watcher: list[LayerRecord],
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None,
    adaptation: Tensor | None,
) -> Step:
    run = trajectory(currents, dynamics, rule, signature, adaptation)
    watcher.append(LayerRecord(run, signature, adaptation, dynamics))
    return run


def _steps(
    currents: Tensor,
    dynamics: Dynamics,
    rule: Rule,
    signature: Tensor | None,
    adaptation: Tensor | None,
) -> Iterator[Step]:
    state = resting(currents[0], dynamics)
    each = bptt() if isinstance(rule, WholeLayer) else rule
    # unbind once: indexing inside the loop would make autograd build a full-size gradient per step.
    for t, current in enumerate(currents.unbind(0)):
        if signature is None or adaptation is None:
            step, state = lif_step(current, state, dynamics, each.at(t))
        else:
            step, state = talif_step(current, state, signature[t], adaptation, dynamics, each.at(t))
        yield step


def _whole(
    currents: Tensor, dynamics: Dynamics, rule: WholeLayer, signature: Tensor | None, adaptation: Tensor | None
) -> Tensor:
    return _WholeLayer.apply(currents, signature, adaptation, dynamics, rule)  # type: ignore[no-any-return, no-untyped-call]


class _WholeLayer(torch.autograd.Function):
    """The spikes of `_steps`, differentiated by a rule that sees the whole run."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        signature: Tensor | None,
        adaptation: Tensor | None,
        dynamics: Dynamics,
        rule: WholeLayer,
    ) -> Tensor:
        run = trajectory(currents, dynamics, rule, signature, adaptation)
        ctx.save_for_backward(currents, *run)
        ctx.dynamics, ctx.rule = dynamics, rule
        return run.spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        currents, *run = ctx.saved_tensors
        return ctx.rule.backward(grads[0], Step(*run), currents, ctx.dynamics), None, None, None, None


class _LocalInTime(torch.autograd.Function):
    """The traces of `_steps` for rules without a path between steps, with the gradient in closed form.

    Equal to autograd through the step (a test says so) but needs only the membrane, and adds the local rule for k.
    """

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        signature: Tensor | None,
        adaptation: Tensor | None,
        dynamics: Dynamics,
        rule: GradientRule,
    ) -> Tensor:
        membrane, output = torch.empty_like(currents), torch.empty_like(currents)
        distance = None if rule.at_resting_threshold else torch.empty_like(currents)
        for t, step in enumerate(_steps(currents, dynamics, rule, signature, adaptation)):
            membrane[t] = step.membrane
            output[t] = step.trace
            if distance is not None:
                torch.sub(step.membrane, step.threshold, out=distance[t])
        ctx.dynamics, ctx.rule = dynamics, rule
        ctx.adaptation_shape = None if adaptation is None else adaptation.shape
        ctx.save_for_backward(membrane, signature, distance)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        membrane, signature, distance = ctx.saved_tensors
        dynamics, rule = ctx.dynamics, ctx.rule
        gradient = torch.empty_like(membrane)
        through_trace = torch.zeros_like(membrane[0])
        for t in reversed(range(len(membrane))):
            through_trace.mul_(dynamics.synaptic_decay).add_(grads[0][t])
            at = membrane[t] - dynamics.threshold if distance is None else distance[t]
            torch.mul(through_trace, rule.surrogate.derivative(at).div_(dynamics.tau_synapse), out=gradient[t])
        adaptation_gradient = None
        if ctx.needs_input_grad[2] and rule.local_adaptation:
            error = membrane.mean((0, 1)) - signature.mean(0)
            adaptation_gradient = (-0.1 * gradient.sum(1).mean(0) * error).sum_to_size(ctx.adaptation_shape)
        return gradient, None, adaptation_gradient, None, None
