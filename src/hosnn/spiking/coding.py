"""Turning images into synaptic input over time."""

import torch
from torch import Tensor


def filter_synaptic(frames: Tensor, tau_synapse: float, initial: Tensor | None = None) -> Tensor:
    """Low-pass filter every pixel as a synapse filters spikes.

        a[t] = (1 - 1/τ_s) a[t-1] + x[t]/τ_s

    frames   x[t]  [T, B, ...]
    initial  a[0]  broadcastable to [B, ...]; None: 0
    returns  a[t]  [T, B, ...]
    """
    trace = _initial_state(frames[0], initial)
    traces = []
    for frame in frames.unbind(0):
        trace = filter_step(frame, trace, tau_synapse)
        traces.append(trace)
    return torch.stack(traces)


def filter_step(frame: Tensor, trace: Tensor, tau_synapse: float) -> Tensor:
    """One step of `filter_synaptic`: a[t] [B, ...] from x[t] and a[t-1]."""
    return (1 - 1 / tau_synapse) * trace + frame / tau_synapse


def encode_constant(images: Tensor, steps: int, tau_synapse: float, initial: Tensor | None = None) -> Tensor:
    """The same image at every step, filtered by the synapse: a[t] = x + (1 - 1/τ_s)^t (a[0] - x).

    images   x     [B, ...]
    initial  a[0]  broadcastable to [B, ...]; None: 0
    returns  a     [T, B, ...], bit for bit `filter_synaptic` of T copies of x
    """
    rise = images / tau_synapse
    trace = _initial_state(rise, initial)
    traces = []
    for _ in range(steps):
        trace = (1 - 1 / tau_synapse) * trace + rise
        traces.append(trace)
    return torch.stack(traces)


def _initial_state(like: Tensor, initial: Tensor | None) -> Tensor:
    return torch.zeros_like(like) if initial is None else initial.expand_as(like)
