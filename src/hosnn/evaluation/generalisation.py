"""Accuracy under common corruptions and at other numbers of time steps than in training."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hosnn.data.corruptions import SEVERITIES, Corruption, corrupt
from hosnn.data.split import Split
from hosnn.errors import ConfigError
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.modes import device_of, evaluating
from hosnn.nn.neurons import TALIF, Extrapolation
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.results.statistics import Interval, wilson
from hosnn.robustness.model import Model

BLOCK = 50


@dataclass(frozen=True, kw_only=True)
class CorruptionAccuracies:
    """Accuracy of one model under common corruptions.

    clean       on the images as they are
    accuracies  [corruption][severity], in the order of `corruptions` and `severities`, fractions in [0, 1]
    """

    samples: int
    seed: int
    clean: float
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    accuracies: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Mean over all corruptions and severities."""
        accuracies = [accuracy for row in self.accuracies for accuracy in row]
        return sum(accuracies) / len(accuracies)

    def mean_of(self, corruption: str) -> float:
        """Mean over the severities of one corruption.  Raises ConfigError if it is not there."""
        if corruption not in self.corruptions:
            raise ConfigError(f"no corruption {corruption!r} was measured; there are {', '.join(self.corruptions)}")
        row = self.accuracies[self.corruptions.index(corruption)]
        return sum(row) / len(row)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mean": self.mean}


@dataclass(frozen=True, kw_only=True)
class StepAccuracies:
    """Accuracy of one network at other numbers of time steps than it was trained for.

    own         the number of time steps it was trained for
    beyond      how its signature is extrapolated after its last step: "hold-last" or "repeat"; "" if it has none
    accuracies  one for each of `steps`; intervals: Wilson's, 95 %
    """

    samples: int
    own: int
    beyond: str
    steps: tuple[int, ...]
    accuracies: tuple[float, ...]
    intervals: tuple[Interval, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"intervals": [list(interval) for interval in self.intervals]}


def corruption_accuracy(
    model: Model,
    split: Split,
    seed: int = 0,
    samples: int | None = None,
    corruptions: Sequence[Corruption] = tuple(Corruption),
    severities: Sequence[int] = SEVERITIES,
) -> CorruptionAccuracies:
    """Accuracy on corrupted images of `split`, by corruption and severity.

    samples  a fixed class-balanced choice of this many; None for all
    Raises ConfigError for no corruption or severity, or fewer images.
    """
    chosen = _chosen(split, samples)
    if not corruptions or not severities:
        raise ConfigError("corruption_accuracy got no corruption or no severity; expected at least one of each")

    def accuracy(kind: Corruption, severity: int) -> float:
        return _num_correct(model, chosen, lambda x, index: corrupt(x, kind, severity, seed, index)) / len(chosen)

    return CorruptionAccuracies(
        samples=len(chosen),
        seed=seed,
        clean=_num_correct(model, chosen, lambda x, index: x) / len(chosen),
        corruptions=tuple(kind.value for kind in corruptions),
        severities=tuple(severities),
        accuracies=tuple(tuple(accuracy(kind, severity) for severity in severities) for kind in corruptions),
    )


def steps_at_test_time(
    model: SpikingNetwork,
    split: Split,
    steps: Sequence[int] = (1, 2, 3, 5, 8, 10),
    samples: int | None = None,
    beyond: Extrapolation = Extrapolation.HOLD_LAST,
) -> StepAccuracies:
    """Accuracy of copies of the network that present each image for other numbers of time steps.

    beyond  how parameters per time step (signature, thresholds) are extrapolated after the last one, in layers that
            would raise an error there; other layers keep their own way
    Raises ConfigError for another model than a SpikingNetwork, or for steps below 1.
    """
    if not isinstance(model, SpikingNetwork):
        raise ConfigError(
            f"steps_at_test_time got a {type(model).__name__}; expected a hosnn SpikingNetwork, whose number of time "
            "steps can be changed"
        )
    if not steps or min(steps) < 1:
        raise ConfigError(f"steps_at_test_time got steps {tuple(steps)}; expected numbers of at least 1")
    images, num_correct, extrapolation = _chosen(split, samples), [], ""
    for number in steps:
        copied, extrapolation = _with_steps(model, number, beyond)
        num_correct.append(_num_correct(copied, images, lambda x, index: x))
    return StepAccuracies(
        samples=len(images),
        own=model.steps,
        beyond=extrapolation,
        steps=tuple(steps),
        accuracies=tuple(count / len(images) for count in num_correct),
        intervals=tuple(wilson(count, len(images)) for count in num_correct),
    )


def _with_steps(model: SpikingNetwork, steps: int, beyond: Extrapolation) -> tuple[SpikingNetwork, str]:
    """A copy that runs `steps` time steps, and how it extrapolates parameters per time step ("" if it has none)."""
    copied = copy.deepcopy(model)
    copied.coding.steps = steps
    extrapolation = ""
    for layer in copied.modules():
        if isinstance(layer, (TALIF, ThresholdLIF, TimeBatchNorm)) and _is_timed(layer):
            layer.beyond = beyond if layer.beyond is Extrapolation.ERROR else layer.beyond
            extrapolation = layer.beyond.value
    return copied, extrapolation


def _is_timed(layer: TALIF | ThresholdLIF | TimeBatchNorm) -> bool:
    """Whether the layer has parameters for each time step."""
    if isinstance(layer, TimeBatchNorm):
        return layer.steps is not None
    return isinstance(layer, TALIF) or len(layer.threshold) > 1


def _chosen(split: Split, samples: int | None) -> Split:
    chosen = split if samples is None else split.subset(samples)
    if len(chosen) == 0:
        raise ConfigError("got no images to measure accuracy on; expected at least 1")
    return chosen


def _num_correct(model: Model, split: Split, change: Callable[[Tensor, Tensor], Tensor]) -> int:
    """Number of images that the model classifies correctly after `change(x, index)`."""
    correct = 0
    with evaluating(model), torch.no_grad():
        for rows in split.blocks(BLOCK):
            x, y = split.batch(rows)
            x = change(x, split.index[rows.to(split.index.device)]).to(device_of(model, x))
            correct += int((model(x).argmax(1) == y.to(x.device)).sum())
    return correct
