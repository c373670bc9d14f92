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
    "more than on clean images: the network reads the label from the perturbation (label leaking), so accuracy on "
    "adversarial images says nothing.  Attack from a random start or with more steps"
)
LEAKING_FROM = 0.01
"""By how much accuracy on adversarial images exceeds that on clean ones before a run says so: less may be chance."""


class Validation(NamedTuple):
    """Accuracy on the validation split, on adversarial images if the objective has an attack, and under the probe.

    blind  whether all images got the same logits, as where nothing spikes
    clean  accuracy on the images themselves; None if the objective trains on these
    both   share of images that are classified right both clean and adversarial; None as `clean`
    """

    accuracy: float
    probe: float | None = None
    blind: bool = False
    clean: float | None = None
    both: float | None = None

    def __str__(self) -> str:
        clean = "" if self.clean is None else f" (clean {self.clean:.2%})"
        probed = "" if self.probe is None else f", under the probe {self.probe:.2%}"
        blind = f"; {BLIND}" if self.blind else ""
        leaking = f"; {LEAKING}" if self.is_leaking else ""
        return f"validation accuracy {self.accuracy:.2%}{clean}{probed}{blind}{leaking}"

    @property
    def selected(self) -> float:
        """What the best epoch is chosen by: accuracy under the probe, else images right both clean and adversarial.

        Training on a single step of an attack can teach a network to read the label from the perturbation (Kurakin et
        al. 2017, "Adversarial machine learning at scale").  It is then right on adversarial images that it does not
        recognise without the perturbation, and by these alone the epoch in which it does so most would be kept.
        """
        if self.probe is not None:
            return self.probe
        return self.accuracy if self.both is None else self.both

    @property
    def is_leaking(self) -> bool:
        """Whether the network is clearly more accurate on adversarial images than on clean ones."""
        return self.clean is not None and self.accuracy - self.clean > LEAKING_FROM


@torch.no_grad()
def validate(network: SpikingNetwork, experiment: Experiment, split: Split, ranks: Ranks) -> Validation:
    """Accuracy on the validation split; the images are shared among the ranks."""
    network.eval()
    correct = correct_clean = correct_both = 0
    has_attack = False
    seen: set[tuple[float, ...]] = set()
    for rows in split.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in split.batch(rows))
        rng = SampleRandom(experiment.seed, split.index[rows]).fold("validation")
        perturbed = experiment.objective.perturbed(network, x, y, rng)
        logits = network(perturbed)
        right = logits.argmax(1) == y
        correct += int(right.sum())
        if perturbed is not x:
            has_attack = True
            right_clean = network(x).argmax(1) == y
            correct_clean += int(right_clean.sum())
            correct_both += int((right & right_clean).sum())
        seen.update(map(tuple, logits.unique(dim=0)[:2].tolist()))
    accuracy, blind = ranks.total(correct) / len(split), len(split) > 1 and not ranks.any(len(seen) > 1)
    result = Validation(accuracy, blind=blind)
    if ranks.any(has_attack):
        clean, both = (ranks.total(count) / len(split) for count in (correct_clean, correct_both))
        result = result._replace(clean=clean, both=both)
    if experiment.probe is None:
        return result
    probed = split.subset(min(experiment.probe.images, len(split)))
    withstood = 0
    for rows in probed.blocks(VALIDATION_BATCH)[ranks.rank :: ranks.world_size]:
        x, y = (tensor.to(ranks.fabric.device) for tensor in probed.batch(rows))
        rng = SampleRandom(experiment.seed, probed.index[rows]).fold("probe")
        withstood += int(experiment.probe.withstood(network, x, y, rng).sum())
    return result._replace(probe=ranks.total(withstood) / len(probed))
