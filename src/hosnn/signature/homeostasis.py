"""Making a network homeostatic: every hidden LIF layer becomes TA-LIF around its recorded signature."""

import copy
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.identity import identified
from hosnn.nn.modes import device_of
from hosnn.nn.neurons import LIF, TALIF, Extrapolation, hidden_neurons
from hosnn.nn.unwrapping import unwrapped
from hosnn.signature.signature import Signature, network_identity

M = TypeVar("M", bound=nn.Module)


@identified("Share")
class Share(Enum):
    """Which neurons of a layer [*N] share one adaptation rate k.

    NEURON   each has its own: k [*N]
    CHANNEL  one for each channel: k [C, 1, ..]
    LAYER    one for the layer: k []
    """

    NEURON = "neuron"
    CHANNEL = "channel"
    LAYER = "layer"

    def shape(self, neurons: torch.Size) -> tuple[int, ...]:
        """The shape of k for a layer of `neurons` [*N]."""
        if self is Share.NEURON:
            return tuple(neurons)
        if self is Share.CHANNEL:
            return (neurons[0], *[1] * (len(neurons) - 1))
        return ()


def homeostatic(
    model: M,
    signature: Signature,
    adaptation: float = 0.2,
    share: Share = Share.NEURON,
    beyond: Extrapolation = Extrapolation.ERROR,
) -> M:
    """A copy of `model` whose hidden LIF layers adapt their thresholds to hold the membrane at `signature`.

        θ[t] = θ[t-1] + k (u[t] - u*[t]),   k learned, `adaptation` initially

    Weights are copied, `model` is unchanged.  k = 0 gives the same outputs as `model`, bit for bit.
    Raises SignatureError if the signature was recorded from other weights, other layers or another number of steps.
    Source: HoSNN, arXiv:2308.10373.
    """
    model = unwrapped(model, "homeostatic")
    layers = hidden_neurons(model)
    if set(layers) != set(signature.layers):
        raise SignatureError(
            f"the signature covers the layers {sorted(signature.layers)} but the network's spiking layers are "
            f"{sorted(layers)}; calibrate this network"
        )
    steps = getattr(model, "steps", signature.steps)
    if steps != signature.steps and beyond is Extrapolation.ERROR:
        raise SignatureError(
            f"the signature has {signature.steps} time steps but the network runs {steps}; calibrate at {steps} steps, "
            "or choose Extrapolation.HOLD_LAST or Extrapolation.REPEAT"
        )
    if network_identity(model) != signature.model_sha256:
        raise SignatureError(
            f"the signature was recorded from a network {signature.model_sha256[:12]} but this one is "
            f"{network_identity(model)[:12]} (same layers, other weights or constants); calibrate this network"
        )
    adapted = copy.deepcopy(model)
    for name, layer in hidden_neurons(adapted).items():
        mean = signature.layers[name].mean.to(device_of(model), _dtype(model))
        replace_layer(adapted, name, _adapting(layer, mean, adaptation, share, beyond))
    return adapted


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` at the module path `name`, in place."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _adapting(layer: LIF, mean: Tensor, adaptation: float, share: Share, beyond: Extrapolation) -> TALIF:
    rates = torch.full(share.shape(mean.shape[1:]), adaptation, dtype=mean.dtype, device=mean.device)
    return TALIF.from_lif(layer, mean, rates, beyond)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
