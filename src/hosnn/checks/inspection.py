"""What kind of model is evaluated: with hosnn's spiking layers, foreign spikes or none; with a gradient or without."""

from torch import Tensor, nn

from hosnn.checks.copies import compare_copy
from hosnn.checks.foreign_libraries import spiking_library
from hosnn.checks.measurements import input_gradients, relative_difference, seeded_scores, without_side_effects
from hosnn.checks.model_checks import REPEATABLE
from hosnn.checks.spike_traces import emissions, watch_operations
from hosnn.nn.neurons import TALIF, neurons
from hosnn.results.evaluation import Network
from hosnn.robustness.losses import margin
from hosnn.robustness.model import Model


def inspect_network(model: Model, x: Tensor) -> Network:
    """What kind of model this is, found on a few images x [n, ...]."""
    with without_side_effects(model):
        logits, other_logits = (seeded_scores(model, x, seed) for seed in (0, 1))
        gradient = input_gradients(model, x, logits.argmax(1), margin) is not None
        random = relative_difference(logits, other_logits) > REPEATABLE
        if not isinstance(model, nn.Module):
            return Network(gradient=gradient, random=random)
        layers = neurons(model).values()
        spiking, evidence = ("hosnn", _beside_ours(model, x)) if layers else foreign_spikes(model, x)
        return Network(
            spiking=spiking,
            evidence=evidence,
            layers=len(layers),
            adaptive=sum(isinstance(layer, TALIF) and bool((layer.adaptation > 0).any()) for layer in layers),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gradient=gradient,
            random=random,
            copies=compare_copy(model, x),
        )


def foreign_spikes(model: nn.Module, x: Tensor) -> tuple[str, str]:
    """Whether a network without hosnn's layers spikes ("foreign", "none" or "unknown"), and what shows it.

    foreign  a module emits 0 and one other value, or several multiples and belongs to a spiking library; or a function
             called in forward compares, and has a gradient of its own
    unknown  only part of that was seen, which quantised networks and custom gradients share with spikes; or nothing
             was, because operations are not torch's own, or the logits were computed where torch does not see it
    """
    emitted = emissions(model, x)
    for emission in emitted:
        if emission.levels == "two" or spiking_library(emission.module):
            return "foreign", f"{type(emission.module).__name__} emits spikes"
    if emitted:
        return "unknown", f"{type(emitted[0].module).__name__} emits multiples of one value"
    operations = watch_operations(model, x)
    if operations.functions:
        name = f"the autograd function {operations.functions[0]}"
        if "a comparison" in operations.steps:
            return "foreign", f"{name} emits spikes"
        return "unknown", f"{name} has a gradient of its own"
    if operations.steps:
        return "unknown", f"values pass through {operations.steps[0]}"
    if operations.unknown:
        return "unknown", f"values pass through the operation {operations.unknown[0]}"
    return ("none", "") if operations.followed else ("unknown", "its operations cannot be seen")


def _beside_ours(model: nn.Module, x: Tensor) -> str:
    """What shows foreign spikes, or operations of no known gradient, in a network that has hosnn's layers, too."""
    kinds = (type(emission.module) for emission in emissions(model, x) if not neurons(emission.module))
    foreign = (kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] != "hosnn")
    spiking = next((f"{name} emits spikes" for name in foreign), "")
    unknown = (name for name in watch_operations(model, x).unknown if not name.startswith("hosnn::"))
    return spiking or next((f"values pass through the operation {name}" for name in unknown), "")
