"""Recording a signature: one pass over clean training data, weights frozen, in eval mode."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.nn.modes import evaluating
from hosnn.nn.neurons import LIF, hidden_neurons
from hosnn.signature.signature import LayerSignature, Signature, network_identity
from hosnn.spiking.dynamics import Step


def calibrate(
    model: nn.Module,
    loader: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]],
    *,
    dataset: str = "",
    dataset_sha256: str = "",
) -> Signature:
    """Mean and variance of the membrane before reset of every hidden spiking layer, over clean training data.

        u*[t] = mean over samples of u[t]

    loader   batches of images x [B, ...], or (x, ...) with x first
    returns  a `Signature`; sums are kept in float64, so that halves merge to the whole
    The model is left as it was (mode, weights, gradients).
    Raises SignatureError if the model has no spiking layer or the loader no image.
    Source: HoSNN, arXiv:2308.10373.
    """
    if not hidden_neurons(model):
        raise SignatureError(
            f"calibrate got a {type(model).__name__} without hosnn.LIF layers; put LIF() after each synaptic layer"
        )
    running: Signature | None = None
    source = network_identity(model)
    with evaluating(model), torch.inference_mode():
        for batch in loader:
            images = batch if isinstance(batch, Tensor) else batch[0]
            if len(images) == 0:
                continue
            layers = {name: _moments(step.membrane) for name, step in trajectories(model, images).items()}
            part = Signature(layers, len(images), dataset, dataset_sha256, source)
            running = part if running is None else running.merge(part)
    if running is None:
        raise SignatureError("calibrate got no images; pass batches of clean training data")
    layers = {
        name: LayerSignature(layer.mean.clone(), layer.variance.clone()) for name, layer in running.layers.items()
    }
    return Signature(layers, running.samples, dataset, dataset_sha256, source)


def trajectories(model: nn.Module, images: Tensor) -> dict[str, Step]:
    """What every hidden spiking layer does for a batch: membrane, threshold, spikes, trace, each [T, B, *N]."""
    with _currents_of(hidden_neurons(model)) as currents:
        model(images)
    layers = hidden_neurons(model)
    missing = [name for name in layers if name not in currents]
    if missing:
        raise SignatureError(
            f"the spiking layers {missing} were not reached by a forward pass; give a layer that is not used, or is "
            "an output layer, fixed_threshold=True"
        )
    return {name: layer.trajectory(currents[name]) for name, layer in layers.items()}


@contextmanager
def _currents_of(layers: dict[str, LIF]) -> Iterator[dict[str, Tensor]]:
    """Collects each layer's input by a hook, so that observing a network puts no state into it."""
    currents: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name in currents:
                raise SignatureError(
                    f"the spiking layer {name!r} was reached more than once in a forward pass, so that one signature "
                    "cannot describe it; give every place its own LIF()"
                )
            currents[name] = arguments[0]

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield currents
    finally:
        for handle in handles:
            handle.remove()


def _moments(membrane: Tensor) -> LayerSignature:
    """[T, B, *N] -> mean and population variance over B, float64."""
    exact = membrane.double()
    return LayerSignature(exact.mean(1), exact.var(1, unbiased=False))
