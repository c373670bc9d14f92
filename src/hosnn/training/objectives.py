"""Training objectives: a loss over clean images, or over adversarial ones.

Shapes: clean and perturbed images [B, C, H, W], labels y [B], outputs over time [T, B, K], logits [B, K].
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.estimators import OnFrames
from hosnn.identity import OMITTED_AT_DEFAULT, identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.modes import evaluating, statistics_held
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import format_eps
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.decoding import target_traces, van_rossum_loss


class TrainingLoss(Protocol):
    """(network, x, y) -> the loss of each sample [B]."""

    def __call__(self, network: SpikingNetwork, x: Tensor, y: Tensor, /) -> Tensor: ...


@identified("CrossEntropy")
@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(scale · logits)[y]; a scale sharpens logits that are mean traces in [0, 1).

    smoothing  label smoothing: this share of the target is spread evenly over all classes (Szegedy et al. 2016)
    """

    scale: float = 1.0
    smoothing: float = field(default=0.0, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf") or not 0 <= self.smoothing < 1:
            raise ConfigError(
                f"CrossEntropy got scale {self.scale} and smoothing {self.smoothing}; expected a positive number and a "
                "share in [0, 1)"
            )

    def __call__(self, network: SpikingNetwork, x: Tensor, y: Tensor) -> Tensor:
        return self.of_logits(network(x), y)

    def of_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The same, from logits [B, K]."""
        return functional.cross_entropy(self.scale * logits, y, reduction="none", label_smoothing=self.smoothing)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """log softmax(scale · logits), [B, K] -> [B, K]."""
        return functional.log_softmax(self.scale * logits, 1)


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


class Objective:
    """What one optimiser step minimises: the mean of `losses`.  Here: `loss` over clean images."""

    loss: TrainingLoss

    @property
    def replays(self) -> int:
        """How many times in a row each batch is trained on."""
        return 1

    def moved(self, x: Tensor, perturbed: Tensor, gradient: Tensor) -> Tensor:
        """The images of the next replay, from those of this one and the gradient of their loss."""
        return perturbed

    @property
    def title(self) -> str:
        """What tables call training with it: "clean", the attack of adversarial training ("FGSM 2/255"), or the name of
        another objective with its attack."""
        attack = getattr(self, "attack", None)
        if attack is None:
            return "clean"
        return attack_title(attack) if type(self) is Adversarial else f"{type(self).__name__}, {attack_title(attack)}"

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        """The images to train on, in place of the clean ones x; validation accuracy is taken on these too."""
        return x

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample [B], from the clean images x and the perturbed ones."""
        return self.loss(network, perturbed, y)

    def after_step(self, network: nn.Module) -> None:
        """A change of the weights after each optimiser step, in place."""


@identified("Clean")
@dataclass(frozen=True)
class Clean(Objective):
    """Ordinary training."""

    loss: TrainingLoss


@identified("Adversarial")
@dataclass(frozen=True)
class Adversarial(Objective):
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
        check_craft_in(self)

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        check_per_step(self.attack, x)
        with crafting(network, self.craft_in):
            return self.attack(network, x, y, rng)


def check_per_step(attack: Any, x: Tensor) -> None:
    """Raises ConfigError for images and an attack whose threat is per time step, if nothing makes frames of them."""
    while hasattr(attack, "attack"):
        if isinstance(attack, OnFrames):
            return
        attack = attack.attack
    threat = getattr(attack, "threat", None)
    if isinstance(threat, Threat) and threat.per_step and x.dim() == 4:
        raise ConfigError(
            f"the training attack {type(attack).__name__} has the threat {threat}, but would give every time step the "
            "same perturbation of an image; wrap it in OnFrames, or leave out /step"
        )


def attack_title(attack: Any) -> str:
    """E.g. "FGSM 2/255", whatever the attack is wrapped in; the class's name of an attack other than PGD."""
    while hasattr(attack, "attack"):
        attack = attack.attack
    if not isinstance(attack, PGD):
        return type(attack).__name__
    name = "FGSM" if attack.steps == 1 else f"PGD-{attack.steps}"
    return f"{name} {format_eps(attack.threat.ball.eps)}"


def check_craft_in(objective: Any) -> None:
    """Raises ConfigError unless `craft_in` is one of the modes of `Adversarial`."""
    if objective.craft_in not in ("train", "eval", "train-moving"):
        name = type(objective).__name__
        raise ConfigError(f"{name} got craft_in = {objective.craft_in!r}; expected 'train', 'eval' or 'train-moving'")


def crafting(network: nn.Module, craft_in: str) -> AbstractContextManager[None]:
    """The network in the mode that `Adversarial.craft_in` names."""
    if craft_in == "eval" or not network.training:
        return evaluating(network)
    return statistics_held(network) if craft_in == "train" else nullcontext()
