"""Validation after each epoch, which chooses the epoch whose network is kept."""

from typing import NamedTuple

import torch

from hosnn.data import Split
from hosnn.nn.layers import SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.training.experiment import Experiment
from hosnn.training.ranks import Ranks

VALIDATION_BATCH = 100  # images; with more, attacks in validation would need more memory than training

BLIND = (
    "every image gets the same logits, so perhaps no neuron of some layer spikes (`hosnn inspect` shows the rates): "
    "lower the thresholds or the learning rate, or start with larger weights"
)


class Validation(NamedTuple):
    """Accuracy on the validation split, on adversarial images if the objective has an attack, and under the probe.

    blind  whether all images got the same logits, as where nothing spikes
    """

    accuracy: float
    probe: float | None = None
    blind: bool = False

    def __str__(self) -> str:
        probed = "" if self.probe is None else f", under the probe {self.probe:.2%}"
        blind = f"; {BLIND}" if self.blind else ""
        return f"validation accuracy {self.accuracy:.2%}{probed}{blind}"

    @property
    def selected(self) -> float:
        """What the best epoch is chosen by."""
        return self.accuracy if self.probe is None else self.probe


@torch.no_grad()
def validate(network: SpikingNetwork, experiment: Experiment, split: Split, ranks: Ranks) -> Validation:
    """Accuracy on the validation split; the images are shared among the ranks."""
    network.eval()
    correct = 0
    seen: set[tuple[float, ...]] = set()
    for rows in split.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in split.batch(rows))
        rng = SampleRandom(experiment.seed, split.index[rows]).fold("validation")
        x = experiment.objective.perturbed(network, x, y, rng)
        logits = network(x)
        correct += int((logits.argmax(1) == y).sum())
        seen.update(map(tuple, logits.unique(dim=0)[:2].tolist()))
    accuracy, blind = ranks.total(correct) / len(split), len(split) > 1 and not ranks.any(len(seen) > 1)
    if experiment.probe is None:
        return Validation(accuracy, blind=blind)
    probed = split.subset(min(experiment.probe.images, len(split)))
    withstood = 0
    for rows in probed.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in probed.batch(rows))
        rng = SampleRandom(experiment.seed, probed.index[rows]).fold("probe")
        withstood += int(experiment.probe.withstood(network, x, y, rng).sum())
    return Validation(accuracy, ranks.total(withstood) / len(probed), blind)
