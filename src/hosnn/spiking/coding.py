"""Turning images into synaptic input over time."""

import torch
from torch import Tensor


def filter_synaptic(frames: Tensor, tau_synapse: float) -> Tensor:
    """Low-pass filter every pixel as a synapse filters spikes.

        a[t] = (1 - 1/τ_s) a[t-1] + x[t]/τ_s,   a[0] = 0

    frames   x[t]  [T, B, ...]
    returns  a[t]  [T, B, ...]
    """
    trace = torch.zeros_like(frames[0])
    traces = []
    for frame in frames.unbind(0):
        trace = (1 - 1 / tau_synapse) * trace + frame / tau_synapse
        traces.append(trace)
    return torch.stack(traces)


def encode_constant(images: Tensor, steps: int, tau_synapse: float) -> Tensor:
    """The same image at every step, filtered by the synapse: a[t] = x (1 - (1 - 1/τ_s)^t).

    images   x  [B, ...]
    returns  a  [T, B, ...], bit for bit `filter_synaptic` of T copies of x
    """
    rise = images / tau_synapse
    trace = torch.zeros_like(rise)
    traces = []
    for _ in range(steps):
        trace = (1 - 1 / tau_synapse) * trace + rise
        traces.append(trace)
    return torch.stack(traces)
