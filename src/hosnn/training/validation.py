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


LEAKING = (
    "more than on clean images: the network reads the label from the perturbation (label leaking) and is not robust "
    "for it; the epoch counts with its accuracy on clean images.  Attack from a random start or with more steps"
)
LEAKING_FROM = 0.01
"""By how much accuracy on adversarial images exceeds that on clean ones before a run says so: less may be chance."""


class Validation(NamedTuple):
    """Accuracy on the validation split, on adversarial images if the objective has an attack, and under the probe.

    blind  whether all images got the same logits, as where nothing spikes
    clean  accuracy on the images themselves; None if the objective trains on these
    """

    accuracy: float
    probe: float | None = None
    blind: bool = False
    clean: float | None = None

    def __str__(self) -> str:
        clean = "" if self.clean is None else f" (clean {self.clean:.2%})"
        probed = "" if self.probe is None else f", under the probe {self.probe:.2%}"
        blind = f"; {BLIND}" if self.blind else ""
        leaking = f"; {LEAKING}" if self.is_leaking else ""
        return f"validation accuracy {self.accuracy:.2%}{clean}{probed}{blind}{leaking}"

    @property
    def selected(self) -> float:
        """What the best epoch is chosen by: accuracy under the probe, else the smaller of adversarial and clean.

        Training on a single step of an attack can teach a network to read the label from the perturbation.  It is
        then more accurate on adversarial images than on clean ones (Kurakin et al. 2017, "Adversarial machine learning
        at scale"), and the epoch in which it does so most would be kept.
        """
        if self.probe is not None:
            return self.probe
        return self.accuracy if self.clean is None else min(self.accuracy, self.clean)

    @property
    def is_leaking(self) -> bool:
        """Whether the network is clearly more accurate on adversarial images than on clean ones."""
        return self.clean is not None and self.accuracy - self.clean > LEAKING_FROM


@torch.no_grad()
def validate(network: SpikingNetwork, experiment: Experiment, split: Split, ranks: Ranks) -> Validation:
    """Accuracy on the validation split; the images are shared among the ranks."""
    network.eval()
    correct = correct_clean = 0
    has_attack = False
    seen: set[tuple[float, ...]] = set()
    for rows in split.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in split.batch(rows))
        rng = SampleRandom(experiment.seed, split.index[rows]).fold("validation")
        perturbed = experiment.objective.perturbed(network, x, y, rng)
        logits = network(perturbed)
        correct += int((logits.argmax(1) == y).sum())
        if perturbed is not x:
            has_attack = True
            correct_clean += int((network(x).argmax(1) == y).sum())
        seen.update(map(tuple, logits.unique(dim=0)[:2].tolist()))
    accuracy, blind = ranks.total(correct) / len(split), len(split) > 1 and not ranks.any(len(seen) > 1)
    clean = ranks.total(correct_clean) / len(split) if ranks.any(has_attack) else None
    if experiment.probe is None:
        return Validation(accuracy, blind=blind, clean=clean)
    probed = split.subset(min(experiment.probe.images, len(split)))
    withstood = 0
    for rows in probed.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in probed.batch(rows))
        rng = SampleRandom(experiment.seed, probed.index[rows]).fold("probe")
        withstood += int(experiment.probe.withstood(network, x, y, rng).sum())
    return Validation(accuracy, ranks.total(withstood) / len(probed), blind, clean)
