"""Validation after each epoch, which chooses the epoch whose network is kept."""

from typing import NamedTuple

import torch

from hosnn.data import Split
from hosnn.nn.layers import SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.training.experiment import Experiment
from hosnn.training.ranks import Ranks

VALIDATION_BATCH = 100  # images; with more, attacks in validation would need more memory than training


class Validation(NamedTuple):
    """Accuracy on the validation split, on adversarial images if the objective has an attack, and under the probe."""

    accuracy: float
    probe: float | None = None

    def __str__(self) -> str:
        probed = "" if self.probe is None else f", under the probe {self.probe:.2%}"
        return f"validation accuracy {self.accuracy:.2%}{probed}"

    @property
    def selected(self) -> float:
        """What the best epoch is chosen by."""
        return self.accuracy if self.probe is None else self.probe


@torch.no_grad()
def validate(network: SpikingNetwork, experiment: Experiment, split: Split, ranks: Ranks) -> Validation:
    """Accuracy on the validation split; the images are shared among the ranks."""
    network.eval()
    correct = 0
    for rows in split.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in split.batch(rows))
        rng = SampleRandom(experiment.seed, split.index[rows]).fold("validation")
        x = experiment.objective.perturbed(network, x, y, rng)
        correct += int((network(x).argmax(1) == y).sum())
    accuracy = ranks.total(correct) / len(split)
    if experiment.probe is None:
        return Validation(accuracy)
    probed = split.subset(min(experiment.probe.images, len(split)))
    withstood = 0
    for rows in probed.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in probed.batch(rows))
        rng = SampleRandom(experiment.seed, probed.index[rows]).fold("probe")
        withstood += int(experiment.probe.withstood(network, x, y, rng).sum())
    return Validation(accuracy, ranks.total(withstood) / len(probed))
