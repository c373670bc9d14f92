"""An experiment as a frozen value: data, network, objective, optimiser, and what it starts from."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from enum import Enum

from hosnn.data.augment import Augmentation
from hosnn.errors import ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT, identified
from hosnn.nn.blueprint import Blueprint
from hosnn.nn.neurons import Extrapolation
from hosnn.signature.homeostasis import Share
from hosnn.training.configuration import BLUEPRINTS, describe, is_readable
from hosnn.training.objectives import Objective
from hosnn.training.probe import Probe
from hosnn.training.schedule import Schedule


@identified("Optimisation")
@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """AdamW, whose learning rate falls to zero along a schedule.

    batch_size  images per step, on all ranks together
    clip        largest norm of the gradient; 0 switches clipping off
    accumulate  gradient accumulation: micro-batches per step on each rank, to need less memory; BatchNorm in train mode
                uses the statistics of each micro-batch
    average     decay per step of the exponential moving average of the weights (Polyak & Juditsky 1992), e.g. 0.999,
                which is then validated and saved in place of the weights; 0: no average
    warmup      share of the steps in which the learning rate rises to lr in a straight line
    schedule    how it falls after them
    Raises ConfigError for values that cannot train.
    """

    epochs: int = 6
    batch_size: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = field(default=1, metadata=OMITTED_AT_DEFAULT)
    average: float = field(default=0.0, metadata=OMITTED_AT_DEFAULT)
    warmup: float = field(default=0.0, metadata=OMITTED_AT_DEFAULT)
    schedule: Schedule = field(default=Schedule.COSINE, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)!r}"
            for name, good in (
                ("epochs", self.epochs >= 1),
                ("batch_size", self.batch_size >= 1),
                ("lr", 0 < self.lr < float("inf")),
                ("weight_decay", self.weight_decay >= 0),
                ("clip", self.clip >= 0),
                ("accumulate", self.accumulate >= 1),
                ("average", 0 <= self.average < 1),
                ("warmup", 0 <= self.warmup < 1),
            )
            if not good
        ]
        if wrong:
            raise ConfigError(
                f"Optimisation got {', '.join(wrong)}; expected epochs, batch_size and accumulate >= 1, lr > 0, "
                "weight_decay and clip >= 0, average and warmup from 0 to below 1"
            )

    def steps(self, images: int) -> int:
        """Steps of the whole training on so many images."""
        return images // min(self.batch_size, images) * self.epochs


@identified("Homeostasis")
@dataclass(frozen=True)
class Homeostasis:
    """Make the starting network homeostatic: calibrate it on its training split, then let its thresholds adapt.

    adaptation  k at the beginning, per time step
    share       which neurons share one k
    """

    adaptation: float = 0.2
    share: Share = Share.NEURON
    beyond: Extrapolation = Extrapolation.ERROR

    def __post_init__(self) -> None:
        if not 0 <= self.adaptation < float("inf"):
            raise ConfigError(f"Homeostasis got adaptation = {self.adaptation}; expected a finite k >= 0, e.g. 0.1")


@identified("LearnedThresholds")
@dataclass(frozen=True)
class LearnedThresholds:
    """Give the starting network a learnable static threshold per neuron (or channel, or layer), as a control.

    It separates "thresholds adapt" from "each neuron has a threshold of its own" (`signature.static_thresholds`).
    learn  always True; stored in checkpoints, which make thresholds learnable again by it
    """

    share: Share = Share.NEURON
    learn: bool = field(default=True, init=False)


@identified("Statistics")
class BatchStatistics(Enum):
    """The images whose statistics BatchNorm uses in train mode where several ranks share a batch.

    ALL_RANKS  the whole batch, so that the number of ranks changes nothing but roundings
    EACH_RANK  the rank's own share: faster; running statistics are the mean over ranks
    """

    ALL_RANKS = "all-ranks"
    EACH_RANK = "each-rank"


@identified("Experiment")
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run.

    data         a name known to `hosnn.data.load_dataset`
    start        the experiment whose best checkpoint this one begins with; None: initial weights
    homeostasis  how the starting network's neurons are replaced, by TA-LIF or a control; None: not
    augmentation  of training images, before the attack; not of those that a signature is recorded on
    statistics   of BatchNorm where several ranks share a batch
    images       train on so many of the training images, a balanced choice; 0: on all
    probe        attacks on validation images that choose the best epoch; None: it is chosen by validation accuracy
    Raises ConfigError for homeostasis without a start (the signature comes from a trained network), and for a start
    with another network or data set, or of the same name.
    """

    name: str
    data: str
    network: Blueprint
    objective: Objective
    optim: Optimisation = Optimisation()
    seed: int = 0
    start: "Experiment | None" = None
    homeostasis: Homeostasis | LearnedThresholds | None = None
    augmentation: Augmentation | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    statistics: BatchStatistics = field(default=BatchStatistics.ALL_RANKS, metadata=OMITTED_AT_DEFAULT)
    images: int = field(default=0, metadata=OMITTED_AT_DEFAULT)
    probe: Probe | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise ConfigError(f"an experiment got the name {self.name!r}; expected letters, digits, '-', '_' and '.'")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"experiment {self.name!r} got seed {self.seed}; expected 0 to 2**63 - 1")
        if self.images < 0:
            raise ConfigError(f"experiment {self.name!r} got images = {self.images}; expected a number, 0 for all")
        if not isinstance(self.network, BLUEPRINTS):
            raise ConfigError(
                f"experiment {self.name!r} got a network {self.network!r}, which a checkpoint could not build again; "
                f"expected a blueprint: {', '.join(kind.__name__ for kind in BLUEPRINTS)}"
            )
        if not is_readable(self.network):
            raise ConfigError(
                f"experiment {self.name!r} got a network {self.network!r}, which a checkpoint could not hold; expected "
                "settings of hosnn's own types, with a gradient rule and a surrogate of hosnn, e.g. bptt(Sigmoid(0.2))"
            )
        if self.homeostasis is not None and self.start is None:
            raise ConfigError(
                f"experiment {self.name!r} is homeostatic but starts from nothing; a signature comes from a trained "
                "network, so give it start=..."
            )
        if self.name in _names_of(self.start):
            raise ConfigError(
                f"experiment {self.name!r} has the name of one it starts from, whose run it would overwrite; give it "
                "another, as with replace(..., name=...)"
            )
        if self.start is not None and (self.start.network, self.start.data) != (self.network, self.data):
            raise ConfigError(
                f"experiment {self.name!r} has another network or data set than {self.start.name!r}, which it starts "
                "from; give both the same"
            )

    @property
    def identity(self) -> str:
        """SHA-256 of the settings: two runs of one identity, on one machine at one precision, give the same bits."""
        return hashlib.sha256(json.dumps(describe(self), sort_keys=True).encode()).hexdigest()


def _names_of(experiment: Experiment | None) -> set[str]:
    """The names of an experiment and of those that it starts from."""
    return set() if experiment is None else {experiment.name} | _names_of(experiment.start)
