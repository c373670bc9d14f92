"""How much of a homeostatic network's robustness is homeostasis: the same attacks on copies without parts of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hosnn.data import Dataset
from hosnn.data.own import OWN
from hosnn.errors import ConfigError
from hosnn.evaluation.generalisation import CorruptionAccuracies, StepAccuracies
from hosnn.protocols.applicability import restriction
from hosnn.protocols.attacks import apgd_ce, sa_pgd
from hosnn.protocols.protocol import Protocol
from hosnn.results.comparison import Comparison
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.signature.ablations import frozen_at_mean_threshold, rate_matched, without_adaptation

FORMAT = "hosnn-controls-1"
TRAINED = "as trained"
NO_ADAPTATION = "k = 0"
MEAN_PER_STEP = "thresholds frozen at their mean over images"
MEAN_OVERALL = "thresholds frozen at their mean over images and time"
LIF = "LIF"
RATE_MATCHED = "LIF at the same firing rates"
IMAGES = 1000
"""Training images on which mean thresholds and firing rates are measured."""


@dataclass(frozen=True, kw_only=True)
class Ablations:
    """A homeostatic network and its ablations under the same attacks.

    compared    accuracies, and paired tests of every ablation against the network
    rates       spikes per neuron and time step by model and layer, on clean training images
    corruptions, steps   by model: accuracy on corrupted images, and at other numbers of time steps
    left_out    ablations that could not be made, with the reason
    """

    model: str
    compared: Comparison
    rates: Mapping[str, Mapping[str, float]]
    corruptions: Mapping[str, CorruptionAccuracies]
    steps: Mapping[str, StepAccuracies]
    left_out: tuple[str, ...]
    seed: int
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]

    def to_json(self) -> dict[str, Any]:
        own = {key: value for key, value in vars(self).items() if key not in ("compared", "corruptions", "steps")}
        return (
            {"format": FORMAT}
            | own
            | {
                "compared": self.compared.to_json(),
                "corruptions": {model: accuracies.to_json() for model, accuracies in self.corruptions.items()},
                "steps": {model: accuracies.to_json() for model, accuracies in self.steps.items()},
            }
        )


def ablation_protocol(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """The strongest attacks of `standard`: SA-PGD through an adaptive surrogate, APGD-CE through full BPTT."""
    return Protocol(
        name="controls",
        description="SA-PGD 400 with adaptive surrogate, APGD-CE 100 through full BPTT; worst case per sample"
        f"{restriction(threat)}",
        threat=threat,
        attacks=(*sa_pgd(threat), apgd_ce(threat)),
        samples=1000,
        cascade=True,
    )


def ablated_models(
    model: nn.Module, lif: nn.Module | None, others: Mapping[str, nn.Module], batches: list[Tensor]
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """The network, its ablations and other networks by name; and ablations that could not be made, with the reason.

    lif      a LIF network trained the same way, tested as it is and with the firing rates of `model`
    others   further networks, e.g. LIF with learned static thresholds
    batches  clean training images, to measure mean thresholds and firing rates on
    Raises ConfigError if one of `others` has the name of an ablation.
    """
    reserved = {TRAINED, NO_ADAPTATION, MEAN_PER_STEP, MEAN_OVERALL, *((LIF, RATE_MATCHED) if lif is not None else ())}
    if clashing := reserved.intersection(others):
        raise ConfigError(
            f"further networks got the names {', '.join(sorted(clashing))}, which ablations have; save them under "
            "other names"
        )
    models = {
        TRAINED: model,
        NO_ADAPTATION: without_adaptation(model),
        MEAN_PER_STEP: frozen_at_mean_threshold(model, batches),
        MEAN_OVERALL: frozen_at_mean_threshold(model, batches, False),
    }
    if lif is None:
        return models | dict(others), ()
    models[LIF] = lif
    try:
        models[RATE_MATCHED] = rate_matched(lif, model, batches).model
    except ConfigError as error:  # e.g. a silent layer; the other ablations can still be made
        return models | dict(others), (f"{RATE_MATCHED}: {error}",)
    return models | dict(others), ()


def training_batches(data: Dataset, count: int = IMAGES, size: int = 250) -> list[Tensor]:
    """The first `count` training images, in batches; of the user's own data, which may be sorted by class, as many of
    each class."""
    count = min(count, len(data.train))
    chosen = data.train.subset(count) if data.name.startswith(OWN) else data.train.take(count)
    return [chosen.batch(rows)[0] for rows in chosen.blocks(size)]
