"""Training of the weights through another gradient estimator than the network's own rule.

Shapes: images [B, C, H, W], labels y [B], losses [B].
"""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.estimators import Estimator, estimator_name
from hosnn.estimators.rules import differentiated
from hosnn.identity import identified
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import LIF, neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.rng import SampleRandom
from hosnn.spiking.gradient_rule import GradientRule, WholeLayerRule, bptt
from hosnn.training.membrane_objectives import NearThreshold, PerturbedMembranes
from hosnn.training.objectives import CrossEntropy, Objective, TrainingLoss
from hosnn.training.paired_objectives import SparseGradients


@identified("WeightsThrough")
@dataclass(frozen=True)
class WeightsThrough(Objective):
    """Another objective, its losses differentiated through an estimator; the losses stay the same to the bit.

    objective  crafts its images through an estimator of its own choice (`Through`)
    estimator  e.g. `AdaptiveSharpness()` (ASSG), whose moments begin anew with each batch
    Raises ConfigError for a kernel loss, for `PerturbedMembranes`, `NearThreshold` and `SparseGradients`, which look
    into the network itself, and for a network without spiking layers.
    """

    objective: Objective
    estimator: Estimator

    def __post_init__(self) -> None:
        looks_inside = isinstance(self.objective, (PerturbedMembranes, NearThreshold, SparseGradients))
        if looks_inside or not isinstance(self.objective.loss, CrossEntropy):
            raise ConfigError(
                f"WeightsThrough got {type(self.objective).__name__} with the loss "
                f"{type(self.objective.loss).__name__}; expected an objective of logits with CrossEntropy"
            )

    @property
    def loss(self) -> TrainingLoss:  # type: ignore[override]  # the other objective's, not to be set here
        return self.objective.loss

    @property
    def replays(self) -> int:
        return self.objective.replays

    @property
    def title(self) -> str:
        return f"{self.objective.title}, weights through {estimator_name(self.estimator)}"

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return self.objective.perturbed(network, x, y, rng)

    def moved(self, x: Tensor, perturbed: Tensor, gradient: Tensor) -> Tensor:
        return self.objective.moved(x, perturbed, gradient)

    def losses(self, network: SpikingNetwork, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        if not neurons(network):
            raise ConfigError(
                f"WeightsThrough got a {type(network).__name__} without spiking layers, which has no estimator; choose "
                "its objective alone"
            )
        if unlearned := [name for name, layer in neurons(network).items() if not self._learns_threshold(layer)]:
            raise ConfigError(
                f"WeightsThrough got {estimator_name(self.estimator)}, which gives no gradient to k or to learned "
                f"thresholds, for a network that has them in {', '.join(unlearned)}; choose an estimator that leaves "
                "the path through the threshold open, or train with fixed thresholds"
            )
        through: Any = differentiated(network, self.estimator, len(x))
        return self.objective.losses(cast(SpikingNetwork, through), x, perturbed, y)

    def _learns_threshold(self, layer: LIF) -> bool:
        """Whether what the layer learns about its threshold, if anything, gets a gradient."""
        parameters = [parameter for _, parameter in layer.named_parameters(recurse=False)]
        if not any(parameter.requires_grad for parameter in parameters):
            return True
        if isinstance(self.estimator, WholeLayerRule):
            return False
        rule = self.estimator if isinstance(self.estimator, GradientRule) else bptt()
        local = rule.is_local_in_time if isinstance(layer, ThresholdLIF) else rule.local_adaptation
        return rule.threshold or local

    def after_step(self, network: nn.Module) -> None:
        self.objective.after_step(network)
