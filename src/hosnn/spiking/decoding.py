"""Reading class scores from output traces, and the loss that trains output traces directly.

Shapes: T time, B batch, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.spiking.coding import filter_synaptic


def mean_over_time(outputs: Tensor) -> Tensor:
    """Logits = mean_t a[t].   [T, B, K] -> [B, K].  Of output traces: a rate readout; of currents: an accumulator."""
    return outputs.mean(0)


def target_traces(labels: Tensor, spikes: tuple[int, ...], classes: int, tau_synapse: float) -> Tensor:
    """The output trace each class should give: `spikes` filtered by the synapse for the label, 0 for others.

    labels   [B]
    spikes   desired spike train, one entry per time step, e.g. (0, 1, 1, 1, 1)
    returns  [T, B, K] float32
    """
    one_hot = functional.one_hot(labels, classes).float()
    spike_train = torch.tensor(spikes, dtype=one_hot.dtype, device=one_hot.device)
    return filter_synaptic(spike_train[:, None, None] * one_hot, tau_synapse)


def van_rossum_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Distance of two sets of filtered spike trains, per sample:  1/2 sum_{t,k} (a[t,k] - a*[t,k])^2.

    outputs, targets  [T, B, K]
    returns           [B]
    Source: van Rossum 2001; "kernel" loss of TSSL-BP and of the authors' code.
    """
    return (outputs - targets).square().sum((0, 2)) / 2


def trace_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy at every time step with the target trace as (unnormalised) label weights, per sample.

        L = -1/T sum_t sum_k a*[t,k] log softmax_k(a[t])

    outputs, targets  [T, B, K]
    returns           [B]
    Source: the authors' attack loss, tools/attack.py.
    """
    return -(targets * outputs.log_softmax(2)).sum(2).mean(0)
