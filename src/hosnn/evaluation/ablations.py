"""How much of a homeostatic network's robustness is homeostasis: the same attacks on networks without a part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hosnn.data import Split
from hosnn.errors import ConfigError
from hosnn.evaluation.generalisation import CorruptionAccuracies, StepAccuracies
from hosnn.protocols.attacks import apgd_ce, restriction, sa_pgd
from hosnn.protocols.protocol import Protocol
from hosnn.results.comparison import Comparison
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.signature.ablations import frozen_at_mean_threshold, rate_matched, without_adaptation

FORMAT = "hosnn-controls-1"
TRAINED = "as trained"
WITHOUT = "k = 0"
STEPWISE = "thresholds frozen at their mean over images"
STATIC = "thresholds frozen at their mean over images and time"
PLAIN = "LIF"
MATCHED = "LIF at the same firing rates"
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


def protocol(threat: Threat = DEFAULT_THREAT) -> Protocol:
    """The attacks of `standard` that take most: SA-PGD through an adaptive surrogate, APGD through full BPTT."""
    return Protocol(
        name="controls",
        description="SA-PGD 400 with adaptive surrogate, APGD-CE 100 through full BPTT; worst case per sample"
        f"{restriction(threat)}",
        threat=threat,
        attacks=(*sa_pgd(threat), apgd_ce(threat)),
        samples=1000,
        cascade=True,
    )


def ablations(
    model: nn.Module, lif: nn.Module | None, others: Mapping[str, nn.Module], batches: list[Tensor]
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """The network and what it is compared with, by name, and the ablations that could not be made, with the reason.

    lif      a LIF network trained the same way, tested as it is and with the firing rates of `model`
    others   further networks, e.g. LIF with learned static thresholds
    batches  clean training images, to measure mean thresholds and firing rates on
    Raises ConfigError if one of `others` has the name of an ablation.
    """
    taken = {TRAINED, WITHOUT, STEPWISE, STATIC, *((PLAIN, MATCHED) if lif is not None else ())}.intersection(others)
    if taken:
        raise ConfigError(
            f"further networks got the names {', '.join(sorted(taken))}, which ablations have; save them under other "
            "names"
        )
    models = {
        TRAINED: model,
        WITHOUT: without_adaptation(model),
        STEPWISE: frozen_at_mean_threshold(model, batches),
        STATIC: frozen_at_mean_threshold(model, batches, False),
    }
    if lif is None:
        return models | dict(others), ()
    models[PLAIN] = lif
    try:
        models[MATCHED] = rate_matched(lif, model, batches).model
    except ConfigError as error:  # a silent layer, say: the other ablations are still of use
        return models | dict(others), (f"{MATCHED}: {error}",)
    return models | dict(others), ()


def training_batches(split: Split, count: int = IMAGES, size: int = 250) -> list[Tensor]:
    """The first `count` training images, in batches."""
    chosen = split.take(min(count, len(split)))
    return [chosen.batch(rows)[0] for rows in chosen.blocks(size)]
