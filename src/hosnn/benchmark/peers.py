"""LIF layers of other libraries (peers) as functions of currents, each computing the spikes of our LIF.

    u[t] = (1 - 1/τ) v[t-1] + I[t],   s[t] = 1 if u[t] > 1,   v[t] = u[t] (1 - s[t]);   τ = 5, full BPTT

Each uses our surrogate (a sigmoid of width 0.2) if it has it, else one of its own, and its own gradient of the reset.
A library is imported only when its layer is built.  Shapes: T time, B batch, N neuron dimensions.
"""

import logging
import math
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from hosnn.errors import ConfigError

Layer = Callable[[Tensor], Tensor]
"""(currents [T, B, *N]) -> spikes [T, B, *N], from rest, differentiable."""

TAU = 5.0
DECAY = 1 - 1 / TAU
SLOPE = 5.0


def spikingjelly() -> Layer:
    """Its multi-step LIF as LIFNode calls it; on a GPU it chooses the kernel (CUDA or Triton) itself."""
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it warns where there is no Triton
    functional = import_module("spikingjelly.activation_based.functional.neuron")
    surrogate = import_module("spikingjelly.activation_based.surrogate").Sigmoid(alpha=SLOPE)

    def layer(currents: Tensor) -> Tensor:
        rest = torch.zeros_like(currents[0], dtype=torch.float32)
        spikes: Tensor = functional.lif_multi_step(currents, rest, TAU, False, 1.0, 0.0, surrogate)[0]
        return spikes

    return layer


def spikingjelly_compiled() -> Layer:
    return torch.compile(spikingjelly(), dynamic=False)


def snntorch() -> Layer:
    package, surrogate = import_module("snntorch"), import_module("snntorch.surrogate")
    cell = package.Leaky(beta=DECAY, reset_mechanism="zero", spike_grad=surrogate.sigmoid(slope=SLOPE))

    def layer(currents: Tensor) -> Tensor:
        cell.to(currents.device)
        spikes, membrane = [], torch.zeros_like(currents[0])
        for current in currents.unbind(0):
            fired, membrane = cell(current, membrane)
            spikes.append(fired)
        return torch.stack(spikes)

    return layer


def norse() -> Layer:
    """Its LIF without synaptic current integrates I/τ, so its potentials, threshold included, are ours divided by τ."""
    package = import_module("norse.torch")
    step = import_module("norse.torch.functional.lif_box")
    constants = step.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 / TAU), v_th=torch.tensor(1 / TAU), method="super", alpha=torch.tensor(100.0)
    )
    lifted = package.Lift(package.LIFBoxCell(constants, dt=1.0))

    def layer(currents: Tensor) -> Tensor:
        lifted.to(currents.device)
        spikes: Tensor = lifted(currents)[0]
        return spikes

    return layer


def sinabs() -> Layer:
    layers, activation = import_module("sinabs.layers"), import_module("sinabs.activation")
    lif = layers.LIF(
        tau_mem=-1 / math.log(DECAY),
        spike_fn=activation.SingleSpike,
        reset_fn=activation.MembraneReset(),
        norm_input=False,
    )
    lif.requires_grad_(False)

    def layer(currents: Tensor) -> Tensor:
        lif.to(currents.device)
        batch_first = currents.transpose(0, 1)
        lif.init_state_with_shape((len(batch_first), *currents.shape[2:]))
        spikes: Tensor = lif(batch_first)
        return spikes.transpose(0, 1)

    return layer


PEERS: dict[str, tuple[str, Callable[[], Layer]]] = {
    "SpikingJelly": ("spikingjelly", spikingjelly),
    "SpikingJelly, compiled": ("spikingjelly", spikingjelly_compiled),
    "snnTorch": ("snntorch", snntorch),
    "Norse": ("norse", norse),
    "sinabs": ("sinabs", sinabs),
}
"""Contestant -> its package, and the function that builds its layer."""


def peer_versions() -> dict[str, str]:
    """Version of each peer's package, "not installed" for one that is absent."""
    versions = {}
    for package in dict.fromkeys(package for package, _ in PEERS.values()):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def peer_layer(name: str) -> Layer:
    """The layer of a peer.  Raises ConfigError if its package is not installed."""
    package, make = PEERS[name]
    if peer_versions()[package] == "not installed":
        raise ConfigError("not installed")
    return make()
