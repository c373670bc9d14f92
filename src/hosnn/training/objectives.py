"""Training objectives: a loss over clean images, or over adversarial ones.

Shapes: images x [B, C, H, W], labels y [B], outputs over time [T, B, K], logits [B, K].
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.modes import evaluating, statistics_held
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Attack
from hosnn.spiking.decoding import target_traces, van_rossum_loss


class TrainingLoss(Protocol):
    """(network, x, y) -> the loss of each sample [B]."""

    def __call__(self, network: SpikingNetwork, x: Tensor, y: Tensor, /) -> Tensor: ...


@identified("CrossEntropy")
@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(scale · logits)[y]; a scale sharpens logits that are mean traces in [0, 1)."""

    scale: float = 1.0

    def __call__(self, network: SpikingNetwork, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.scale * network(x), y, reduction="none")


@identified("VanRossum")
@dataclass(frozen=True)
class VanRossum:
    """The kernel loss of the authors' code: distance of output traces to those of a desired spike train.

    spikes  desired spikes of the label's class, one per time step; the other classes should stay silent
    Raises ConfigError if the network runs another number of steps.
    """

    spikes: tuple[int, ...] = (0, 1, 1, 1, 1)

    def __call__(self, network: SpikingNetwork, x: Tensor, y: Tensor) -> Tensor:
        outputs = network.outputs(x)
        if len(outputs) != len(self.spikes):
            raise ConfigError(
                f"VanRossum got {len(self.spikes)} desired spikes for a network of {len(outputs)} time steps; give one "
                "entry per step"
            )
        targets = target_traces(y, self.spikes, outputs.shape[2], network.coding.tau_synapse)
        return van_rossum_loss(outputs, targets)


class Objective(Protocol):
    """What one optimiser step minimises: the mean of `loss` over `perturbed` images."""

    @property
    def loss(self) -> TrainingLoss: ...

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        """The images the loss is taken on; validation accuracy is taken on these too."""


@identified("Clean")
@dataclass(frozen=True)
class Clean:
    """Ordinary training."""

    loss: TrainingLoss

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return x


@identified("Adversarial")
@dataclass(frozen=True)
class Adversarial:
    """Training on adversarial images (Goodfellow et al. 2015; Madry et al. 2018).

    craft_in  mode of the network during the attack:
              "eval"          dropout off, BatchNorm with running statistics
              "train"         dropout on, BatchNorm with the statistics of the batch; running statistics stay
              "train-moving"  "train", and the attack's passes update running statistics, as in the HoSNN authors' code
              No default: it changes results.  In the first two, only the pass for the loss updates running statistics,
              once per step.
    """

    attack: Attack
    loss: TrainingLoss
    craft_in: Literal["train", "eval", "train-moving"]

    def __post_init__(self) -> None:
        if self.craft_in not in ("train", "eval", "train-moving"):
            raise ConfigError(
                f"Adversarial got craft_in = {self.craft_in!r}; expected 'train', 'eval' or 'train-moving'"
            )

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        with self._crafting(network):
            return self.attack(network, x, y, rng)

    def _crafting(self, network: nn.Module) -> AbstractContextManager[None]:
        if self.craft_in == "eval" or not network.training:
            return evaluating(network)
        return statistics_held(network) if self.craft_in == "train" else nullcontext()
