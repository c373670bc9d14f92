"""Recording a signature: one pass over clean training data, weights frozen, in eval mode."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.nn.modes import evaluating
from hosnn.nn.neurons import LIF, hidden_neurons
from hosnn.signature.signature import LayerSignature, Signature, network_identity
from hosnn.spiking.state import Step

T = TypeVar("T")


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
            layers = _for_each_layer(model, images, lambda layer, currents: _moments(layer.membranes(currents)))
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
    return _for_each_layer(model, images, LIF.trajectory)


def _for_each_layer(model: nn.Module, images: Tensor, look: Callable[[LIF, Tensor], T]) -> dict[str, T]:
    """What `look` makes of every hidden spiking layer and its currents, as soon as these are there.

    By hooks, so that observing a network puts no state into it, and one layer's currents are kept at a time.
    """
    layers, found = hidden_neurons(model), dict[str, T]()

    def watch(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name in found:
                raise SignatureError(
                    f"the spiking layer {name!r} was reached more than once in a forward pass, so that one signature "
                    "cannot describe it; give every place its own LIF()"
                )
            found[name] = look(layers[name], arguments[0])

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in found]
    if missing:
        raise SignatureError(
            f"the spiking layers {missing} were not reached by a forward pass; give a layer that is not used, or is "
            "an output layer, fixed_threshold=True"
        )
    return {name: found[name] for name in layers}


def _moments(membrane: Tensor) -> LayerSignature:
    """[T, B, *N] -> mean and population variance over B, float64; `membrane` is used up.

    The first mean is rounded to the membrane's precision; the mean of what is left corrects it.
    """
    first = membrane.mean(1)
    rest = membrane.sub_(first[:, None])
    correction = rest.mean(1).double()
    variance = rest.square_().mean(1).double() - correction.square()
    return LayerSignature(first.double() + correction, variance.clamp_(min=0))
