"""Sampling neurons of a network on a few images, for the page of an inspection.

Shapes: T time, B batch, N neuron dimensions.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.data import Split
from hosnn.data.containers import images_and_labels
from hosnn.images import check_images
from hosnn.inspection.inspect import CLEAN, Disturbance, disturbed, require_neurons
from hosnn.inspection.recording import Offset, Records, record, signatures_over
from hosnn.nn.modes import device_of, evaluating
from hosnn.results.neuron_samples import ImageSample, LayerSamples, NeuronSamples, Runs
from hosnn.rng import SampleRandom
from hosnn.signature import Signature

IMAGES, NEURONS, STEPS = 8, 32, 200
"""Of images, neurons per layer and time steps, at most so many."""

SILENT = 1 / 4
"""Largest share of the sampled neurons that do not fire, as long as there are others."""

NUMBERS = 200_000
"""Numbers that all samples may hold together, some 7 bytes each on a page; beyond, fewer neurons and images."""

VARIABLES = 4
"""Current, membrane, threshold and spikes."""


def sample_neurons(
    model: nn.Module,
    data: Any,
    disturbances: Mapping[str, Disturbance] | None = None,
    *,
    signature: Signature | None = None,
    seed: int = 0,
    images: int = IMAGES,
    neurons: int = NEURONS,
) -> NeuronSamples:
    """Some neurons of every spiking layer, step by step, on a fixed class-balanced choice of images.

    The arguments are those of `hosnn.inspect`, whose attacks on these images are the same; images and neurons are the
    most that are sampled, fewer if all numbers were too many for a page.  Neurons are evenly spaced in the order of
    their rate among those that fire without disturbance; at most a quarter is of the others, unless too few fire.
    Raises ConfigError as `hosnn.inspect` does.
    """
    require_neurons(model)
    split = data if isinstance(data, Split) else Split.in_order(*images_and_labels(data, "sample_neurons"))
    conditions: dict[str, Disturbance | None] = {CLEAN: None, **(disturbances or {})}
    x, y = split.batch(torch.arange(1))
    check_images(x, origin="sample_neurons")
    with evaluating(model):
        layers = record(model, x.to(device_of(model)))[1]
        of_steps = len(next(iter(layers.values())).trajectory.spikes)
        steps = min(of_steps, STEPS)
        per_neuron_image = VARIABLES * len(conditions) * steps * len(layers)
        neurons, images = _affordable(neurons, min(images, len(split)), NUMBERS // per_neuron_image)
        chosen = split.subset(images)
        x, y = (part.to(device_of(model)) for part in chosen.batch(torch.arange(images)))
        rng = SampleRandom(seed, chosen.index.to(x.device))
        logits, runs = zip(
            *(
                record(
                    model,
                    disturbed(model, disturbance, x, y, rng.fold(name)),
                    disturbance if isinstance(disturbance, Offset) else None,
                )
                for name, disturbance in conditions.items()
            ),
            strict=True,
        )
        signatures = signatures_over(model, of_steps, signature)
    predictions = torch.stack([scores.argmax(1) for scores in logits])
    return NeuronSamples(
        conditions=tuple(conditions),
        images=tuple(
            ImageSample(index=index, label=label, predictions=tuple(predictions[:, row].tolist()))
            for row, (index, label) in enumerate(zip(chosen.index.tolist(), y.tolist(), strict=True))
        ),
        layers=tuple(_layer(name, runs, signatures.get(name), neurons, steps) for name in layers),
        steps=steps,
        of_steps=of_steps,
    )


def _affordable(neurons: int, images: int, pairs: int) -> tuple[int, int]:
    """Numbers of neurons per layer and of images whose product is at most `pairs`, each at least 1."""
    while neurons * images > pairs and (neurons > 4 or images > 1):
        if neurons > 4 * images or images == 1:
            neurons //= 2
        else:
            images //= 2
    return neurons, images


def _layer(name: str, runs: tuple[Records, ...], signature: Tensor | None, count: int, steps: int) -> LayerSamples:
    clean = runs[0][name].trajectory.spikes
    rates = clean.mean((0, 1)).flatten()  # [N]
    chosen = _chosen(rates, count)

    def over_conditions(values: list[Tensor]) -> Runs:
        """[T, B, *N] of each condition -> [C][B][n][T]"""
        sampled = [value[:steps].flatten(2)[:, :, chosen].permute(1, 2, 0).tolist() for value in values]
        return tuple(tuple(tuple(map(tuple, neurons)) for neurons in images) for images in sampled)

    trajectories = [run[name].trajectory for run in runs]
    positions = torch.stack(torch.unravel_index(chosen, clean.shape[2:]), 1).tolist()
    return LayerSamples(
        layer=name,
        neurons=len(rates),
        firing=int((rates > 0).sum()),
        positions=tuple(map(tuple, positions)),
        rates=tuple(rates[chosen].tolist()),
        signature=None if signature is None else tuple(map(tuple, signature[:steps].flatten(1)[:, chosen].T.tolist())),
        current=over_conditions([run[name].currents for run in runs]),
        membrane=over_conditions([trajectory.membrane for trajectory in trajectories]),
        threshold=over_conditions([trajectory.threshold for trajectory in trajectories]),
        spikes=over_conditions([trajectory.spikes for trajectory in trajectories]),
    )


def _chosen(rates: Tensor, count: int) -> Tensor:
    """Which neurons are sampled, of [N] rates: positions, the highest rate first  [n] int64."""
    order = rates.argsort(descending=True, stable=True)
    num_firing = int((rates > 0).sum())
    firing, silent = order[:num_firing], order[num_firing:]
    count = min(count, len(rates))
    of_silent = min(len(silent), max(int(SILENT * count), count - len(firing)))
    return torch.cat([_evenly(firing, count - of_silent), _evenly(silent, of_silent)])


def _evenly(values: Tensor, count: int) -> Tensor:
    """`count` of the values at equal distances, the first and the last among them."""
    return values[torch.linspace(0, max(len(values) - 1, 0), count).round().long().to(values.device)]
