"""Recording a signature in one pass over clean training data, in eval mode and without gradients."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hosnn.errors import ShapeError, SignatureError
from hosnn.images import check_pixels
from hosnn.nn.hooked import forward_with_hooks
from hosnn.nn.modes import evaluating
from hosnn.nn.neurons import LIF, hidden_neurons
from hosnn.nn.unwrapping import unwrapped
from hosnn.signature.signature import LayerSignature, Signature, network_identity
from hosnn.spiking.state import Trajectory

T = TypeVar("T")


def calibrate(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]],
    *,
    dataset: str = "",
    dataset_sha256: str = "",
) -> Signature:
    """Mean and variance of the membrane before reset of every hidden spiking layer, over clean training data.

        u*[t] = mean over samples of u[t]

    batches  of images x [B, ...] in [0, 1], or (x, ...) with x first; any iterable, e.g. a DataLoader
    returns  a `Signature` in float64; signatures of two halves of the data `merge` to that of the whole
    The model's mode, weights and gradients are unchanged.
    Raises SignatureError if the model has no spiking layers or there are no images; ShapeError for images that are not
    raw pixels in [0, 1], or that the model does not take.
    Source: HoSNN, arXiv:2308.10373.
    """
    model = unwrapped(model, "calibrate")
    if not hidden_neurons(model):
        raise SignatureError(
            f"calibrate got a {type(model).__name__} without hosnn.LIF layers; put LIF() after each synaptic layer"
        )
    merged: Signature | None = None
    identity = network_identity(model)
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            images = _images_of(batch)
            if len(images) == 0:
                continue
            check_pixels(images, "calibrate")
            layers = _for_each_layer(model, images, lambda layer, currents: _moments(layer.membranes(currents)))
            of_batch = Signature(layers, len(images), dataset, dataset_sha256, identity)
            merged = of_batch if merged is None else merged.merge(of_batch)
    if merged is None:
        raise SignatureError("calibrate got no images; pass batches of clean training data")
    # Copies, because tensors made in inference mode cannot be used in autograd.
    with torch.inference_mode(False):
        layers = {
            name: LayerSignature(part.mean.clone(), part.variance.clone()) for name, part in merged.layers.items()
        }
    return Signature(layers, merged.samples, dataset, dataset_sha256, identity)


def _images_of(batch: Any) -> Tensor:
    """The images of a batch, which are all of it or its first part.  Raises ShapeError for anything else."""
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(images, (Tensor, np.ndarray)):
        raise ShapeError(f"calibrate got {type(images).__name__} as images; expected batches of x, or of (x, labels)")
    return torch.as_tensor(images)


def trajectories(model: nn.Module, images: Tensor) -> dict[str, Trajectory]:
    """The membrane, threshold, spikes and trace of every hidden spiking layer for a batch, each [T, B, *N]."""
    return _for_each_layer(model, images, LIF.trajectory)


def _for_each_layer(model: nn.Module, images: Tensor, measure: Callable[[LIF, Tensor], T]) -> dict[str, T]:
    """`measure(layer, currents)` of every hidden spiking layer in one forward pass, by module path.

    Measured in hooks, so that the currents of only one layer are in memory at a time.
    """
    layers, measured = hidden_neurons(model), dict[str, T]()

    def hook_for(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name in measured:
                raise SignatureError(
                    f"the spiking layer {name!r} ran more than once in a forward pass, expected once: one signature "
                    "cannot describe several runs; use a separate LIF() in every place"
                )
            measured[name] = measure(layers[name], arguments[0])

        return hook

    forward_with_hooks(model, images, layers, hook_for)
    missing = [name for name in layers if name not in measured]
    if missing:
        raise SignatureError(
            f"the spiking layers {missing} did not run in a forward pass; set fixed_threshold=True on a layer that "
            "is not used or is an output layer"
        )
    return {name: measured[name] for name in layers}


def _moments(membrane: Tensor) -> LayerSignature:
    """[T, B, *N] -> mean and population variance over B, float64; `membrane` is overwritten.

    The mean in the precision of the membrane is rounded; the mean of the residuals corrects it.
    """
    rounded_mean = membrane.mean(1)
    residuals = membrane.sub_(rounded_mean[:, None])
    correction = residuals.mean(1).double()
    variance = residuals.square_().mean(1).double() - correction.square()
    return LayerSignature(rounded_mean.double() + correction, variance.clamp_(min=0))
