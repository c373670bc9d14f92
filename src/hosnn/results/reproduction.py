"""What `hosnn reproduce` measured: the 2x2 of neuron and training under several protocols, beside published numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from hosnn.errors import ConfigError
from hosnn.results.document import Amount, Count, Document, Flag, Integer, Number
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import ATTACKS_ONLY

AT = " at "


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published number."""

    neuron: str
    """E.g. "TA-LIF"."""
    training: str
    """E.g. "FGSM 2/255"."""
    attack: str
    """Name of the attack."""
    accuracy: Number
    """In percent."""
    source: str
    """Where it was published."""


class NetworkKind(NamedTuple):
    """Which network of the 2x2, whatever its seed."""

    neuron: str
    training: str

    def __str__(self) -> str:
        trained = "clean-trained" if self.training == "clean" else f"trained with {self.training}"
        return f"{self.neuron}, {trained}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network of the 2x2, trained with one seed."""

    neuron: str
    """E.g. "TA-LIF"."""
    training: str
    """E.g. "FGSM 2/255"."""
    experiment: str
    """Name of the experiment that trained it."""
    identity: str
    """SHA-256 of the experiment's settings."""
    seed: Integer
    """Seed of the experiment."""
    epochs: Count
    """All epochs it was trained for, those of its start included."""
    training_seconds: Amount
    """Wall time of its own training, its start not included."""
    validation: Number
    """Best validation accuracy, a fraction of 1, under the recipe's probe if it has one, else on images as its
    objective sees them."""
    cpu_seconds: Amount | None = None
    """Processor time of its own training, attacks and validation included; None where it was not recorded."""
    precision: str = ""
    """Precision it was trained in, such as bf16-mixed; empty where that was not recorded."""
    evaluations: Mapping[str, Evaluation]
    """By `evaluation_key`: the protocol's name, with the threat if it is not the usual one."""

    @property
    def kind(self) -> NetworkKind:
        return NetworkKind(self.neuron, self.training)

    def evaluation(self, name: str) -> Evaluation | None:
        """The evaluation of that name, or of the protocol's attacks alone: the worst case is the same."""
        protocol, at, threat = name.partition(AT)
        return self.evaluations.get(name) or self.evaluations.get(f"{protocol}{ATTACKS_ONLY}{at}{threat}")


@dataclass(frozen=True, kw_only=True)
class ReproductionResult(Document):
    """All cells of all seeds, and the published numbers beside them."""

    FORMAT: ClassVar[str] = "hosnn-comparison-1"
    KIND: ClassVar[str] = "reproduction"

    title: str
    """Heading of the report."""
    dataset: str
    """Name of the data set."""
    network: str
    """The network in a few words."""
    cells: tuple[Cell, ...]
    """The networks, seed by seed."""
    columns: tuple[tuple[str, str, str], ...]
    """Heading, evaluation and attack of each column of the table; attack "clean": none, "worst": the worst case."""
    published: tuple[Published, ...]
    """Published numbers."""
    experiments: Mapping[str, Any]
    """Settings of every experiment, by its name."""
    start_seconds: Amount = 0.0
    """Wall time of training the checkpoints from which the cells start, together."""
    starts: Mapping[str, Amount] = field(default_factory=dict)
    """The same for each of them, by the name of its experiment; empty where that was not recorded."""
    demonstration: Flag = False
    """Whether it ran on a small part of the data, to show how it works rather than to measure."""

    @classmethod
    def fields_in(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in a file; in one without `demonstration` it follows from the name of the data set."""
        return {"demonstration": "sample" in str(content.get("dataset"))} | super().fields_in(content)

    def check(self, content: Mapping[str, Any]) -> None:
        if not self.cells:
            raise ConfigError("it has no cells; expected at least one network")
        for cell in self.cells:
            for name, evaluation in cell.evaluations.items():
                if name not in (evaluation.protocol, evaluation_key(evaluation.protocol, evaluation.threat)):
                    raise ConfigError(f"{cell.experiment} has {evaluation.protocol!r} under the name {name!r}")
            for _, protocol, attack in self.columns:
                if attack not in ("clean", "worst") and (measured := cell.evaluation(protocol)):
                    measured.row(attack)

    def phases(self) -> dict[str, float]:
        """Seconds of wall time by what was done."""
        seconds = {"training of the start": self.start_seconds}
        for cell in self.cells:
            phase = f"{cell.training} training"
            seconds[phase] = seconds.get(phase, 0.0) + cell.training_seconds
        for cell in self.cells:
            for name, evaluation in cell.evaluations.items():
                seconds[f"protocol {name}"] = seconds.get(f"protocol {name}", 0.0) + evaluation.seconds
        return seconds


def evaluation_key(protocol: str, threat: str | None = None) -> str:
    """The name of an evaluation in a cell, e.g. "standard, attacks only at linf:2/255"; threat None: the usual one."""
    return protocol if threat is None else f"{protocol}{AT}{threat}"


def cells_by_kind(result: ReproductionResult) -> dict[NetworkKind, list[Cell]]:
    """The cells of each network, one per seed, in their order."""
    cells_of: dict[NetworkKind, list[Cell]] = {}
    for cell in result.cells:
        cells_of.setdefault(cell.kind, []).append(cell)
    return cells_of
