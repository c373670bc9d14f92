"""What kind of model is evaluated: with hosnn's spiking layers, foreign ones or none; with a gradient or without."""

from torch import Tensor, nn

from hosnn.checks.measurements import (
    emits_spikes,
    input_gradients,
    relative_difference,
    seeded_scores,
    without_side_effects,
)
from hosnn.checks.model_checks import REPEATABLE
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
        return Network(
            spiking="hosnn" if layers else "foreign" if emits_spikes(model, x) else "none",
            layers=len(layers),
            adaptive=sum(isinstance(layer, TALIF) and bool((layer.adaptation > 0).any()) for layer in layers),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gradient=gradient,
            random=random,
        )
