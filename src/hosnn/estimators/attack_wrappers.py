"""Attacks on a spiking network's inputs and outputs over time.  Each wraps an attack and is one itself.

Shapes: x [B, C, H, W] or frames [B, T, C, H, W]; outputs over time [T, B, K].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.estimators.model_wrappers import WrappedModel, network_of, unwrapped
from hosnn.identity import identified
from hosnn.nn.layers import MeanReadout, SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack, Model
from hosnn.spiking.decoding import target_traces, trace_cross_entropy

FRAMES = 5
"""Axes of frames [B, T, C, H, W]; images have one fewer."""


@identified("OnFrames")
@dataclass(frozen=True)
class OnFrames:
    """Repeat the image over the network's time steps, then attack: every step gets its own perturbation.

    A larger threat model than one perturbed image; HoSNN's authors use it.  Inputs that are frames already, of event
    data, are attacked as they are.
    returns  frames [B, T, C, H, W]
    Raises ConfigError for images and a model without an integer attribute `steps`.
    """

    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        if x.dim() == FRAMES:
            return self.attack(model, x, y, rng)
        steps = getattr(model, "steps", None)
        if not isinstance(steps, int):
            raise ConfigError(
                f"a threat per time step got a {type(model).__name__}; expected a hosnn SpikingNetwork, or "
                "another model whose `steps` is its number of time steps; use a threat without /step for other models"
            )
        frames = x[:, None].expand(-1, steps, *x.shape[1:]).contiguous()
        return self.attack(model, frames, y, rng)


@identified("OnTraces")
@dataclass(frozen=True)
class OnTraces:
    """Run the attack on the network's outputs over time [T, B, K] in place of its logits; its loss must take those.

    The attack judges success by the outputs' mean over time.  Raises ConfigError for a model without outputs(x), and
    for a SpikingNetwork with another readout than MeanReadout, whose prediction is not that mean.
    """

    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        outputs = getattr(model, "outputs", None)
        if outputs is None:
            raise ConfigError(
                f"a loss over output traces got a {type(model).__name__}; expected a network with outputs(x) -> "
                "[T, B, K], such as a hosnn SpikingNetwork"
            )
        network = network_of(unwrapped(model))
        if isinstance(network, SpikingNetwork) and not isinstance(network.readout, MeanReadout):
            raise ConfigError(
                f"a loss over output traces got a network with the readout {type(network.readout).__name__}, expected "
                "MeanReadout: the attack would judge success by the outputs' mean over time, which is not the "
                "network's own decision; attack its logits instead (without OnTraces)"
            )
        return self.attack(outputs, x, y, rng)


@identified("TraceCrossEntropy")
@dataclass(frozen=True)
class TraceCrossEntropy:
    """The authors' attack loss, cross-entropy at every time step against the target trace (`trace_cross_entropy`).

    (outputs [T, B, K], y [B]) -> [B]
    spikes       the label's desired spike train; its last entry is repeated if the network runs longer.  Where the
                 network is too short for its first spike (one step, as of an ANN) the label is to spike at every step,
                 because without a target there is no gradient
    tau_synapse  in time steps
    """

    spikes: tuple[int, ...] = (0, 1, 1, 1, 1)
    tau_synapse: float = 3.0

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        train = (*self.spikes, *self.spikes[-1:] * len(outputs))[: len(outputs)]
        if not any(train):
            train = (1,) * len(outputs)
        return trace_cross_entropy(outputs, target_traces(y, train, outputs.shape[2], self.tau_synapse))


@identified("InNormalisedUnits")
@dataclass(frozen=True)
class InNormalisedUnits:
    """Attack z = (x - mean)/std rather than x: one eps in z is a different eps in each channel of x.

    The authors of HoSNN divide eps by one scalar std while images are normalised per channel.  `std` relative to that
    scalar keeps the inner attack's eps in pixel units; its threat must have no pixel domain.  With one channel
    this equals the attack on pixels, up to rounding.
    """

    attack: Attack
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device)[:, None, None]
        std = torch.tensor(self.std, dtype=x.dtype, device=x.device)[:, None, None]
        z = self.attack(_Denormalised(model, mean, std), (x - mean) / std, y, rng)
        return z * std + mean


@dataclass(frozen=True)
class _Denormalised(WrappedModel):
    mean: Tensor  # [C, 1, 1]
    std: Tensor  # [C, 1, 1]

    def __call__(self, z: Tensor) -> Tensor:
        return self.model(z * self.std + self.mean)
