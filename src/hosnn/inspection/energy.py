"""Operations and energy of a network per image, with NeuroBench's names and Horowitz's energies.

Sources: NeuroBench (Yik et al. 2025), metrics of its package; M. Horowitz, ISSCC 2014: 45 nm, 32-bit floating point.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hosnn.inspection.operations import EncoderInputs, synaptic_operations
from hosnn.inspection.sums import LayerSums
from hosnn.nn.neurons import TALIF, neurons
from hosnn.results.inspection import Energy, NeuronWork

MULTIPLY, ADD = 3.7, 0.9
"""Energy of a multiplication and of an addition, pJ; a multiply-accumulate is both, 4.6 pJ."""

OPERATIONS_PER_UPDATE = 4
"""Leak, current, comparison and reset: what NeuroBench counts for an update of a leaky neuron with either reset."""

BREAK_EVEN_STEPS, BREAK_EVEN_RATE = 5, 0.057
"""Above this spike rate at this T, a quantised ANN needs less energy.  Source: arXiv:2409.08290."""


def energy_of(
    model: nn.Module,
    sums: Mapping[str, LayerSums],
    inputs: Tensor,
    steps: int,
    images: int,
    encoder: Mapping[str, EncoderInputs],
) -> Energy:
    """Operations under one condition and their energy.

    sums    of every spiking layer under that condition, by module path
    inputs  nonzero values of the encoded images, summed over steps and images  [C, H, W] float64
    encoder  inputs of the layers of weights that run on the image once, by module path
    Raises ConfigError for a network whose operations cannot be counted.
    """
    layers = neurons(model)
    spikes = {name: _spikes(layer) for name, layer in sums.items()}
    synapses = synaptic_operations(model, inputs, spikes, steps, images, encoder)
    macs, acs, dense = (sum(getattr(part, kind) for part in synapses) for kind in ("macs", "acs", "dense"))
    sizes = {name: values.numel() for name, values in spikes.items()}
    adaptive = [name for name, layer in layers.items() if isinstance(layer, TALIF)]
    neuron_steps = steps * sum(sizes.values())
    adaptive_steps = steps * sum(sizes[name] for name in adaptive)
    emitted = sum(float(values.sum()) for values in spikes.values()) / images
    rate = emitted / neuron_steps
    updates = sum(layer.updates for layer in sums.values()) / images
    trace_filter = NeuronWork(multiplies=neuron_steps, adds=emitted)
    adaptation = NeuronWork(multiplies=adaptive_steps, adds=2 * adaptive_steps)
    once = sum(part.dense / (encoder[part.layer].runs if part.layer in encoder else steps) for part in synapses)
    picojoule = {
        "synapses": macs * (MULTIPLY + ADD) + acs * ADD,
        "neurons": neuron_steps * (MULTIPLY + ADD),
        "trace filter": trace_filter.multiplies * MULTIPLY + trace_filter.adds * ADD,
        "adaptation": adaptation.multiplies * MULTIPLY + adaptation.adds * ADD,
    }
    return Energy(
        neurobench={
            "Effective_MACs": macs,
            "Effective_ACs": acs,
            "Dense": dense,
            "ActivationSparsity": 1 - rate,
            "MembraneUpdates": updates,
            "NeuronOperations": OPERATIONS_PER_UPDATE * updates,
            "Footprint": float(_memory([*model.parameters(), *model.buffers()])),
        },
        synapses=synapses,
        trace_filter=trace_filter,
        adaptation=adaptation,
        signature_bytes=_memory([tensor for name in adaptive for tensor in layers[name].state_dict().values()]),
        picojoule=picojoule | {"total": sum(picojoule.values()), "ann": once * (MULTIPLY + ADD)},
        rate=rate,
        break_even_rate=BREAK_EVEN_RATE if steps == BREAK_EVEN_STEPS else math.nan,
    )


def _spikes(layer: LayerSums) -> Tensor:
    assert layer.spikes is not None
    return layer.spikes


def _memory(tensors: list[Tensor]) -> int:
    """Bytes of these tensors."""
    return sum(tensor.numel() * torch.empty((), dtype=tensor.dtype).element_size() for tensor in tensors)
