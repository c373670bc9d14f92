"""The 2x2 of neuron and training under several protocols, beside published numbers: what `hosnn reproduce` finds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hosnn.errors import ConfigError
from hosnn.files import read_json, write_json
from hosnn.results.evaluation import Evaluation

FORMAT = "hosnn-comparison-1"


@dataclass(frozen=True)
class Published:
    """A number somebody else printed, in percent, and where."""

    neuron: str
    training: str
    attack: str
    accuracy: float
    source: str


@dataclass(frozen=True)
class Cell:
    """One network of the 2x2.

    neuron, training   e.g. "TA-LIF", "FGSM 2/255"
    epochs             all epochs it was trained for, those of its start included
    training_seconds   wall time of its own training, its start not included
    validation         best validation accuracy, on images as its objective sees them
    evaluations        by protocol name
    """

    neuron: str
    training: str
    experiment: str
    identity: str
    seed: int
    epochs: int
    training_seconds: float
    validation: float
    evaluations: Mapping[str, Evaluation]


@dataclass(frozen=True)
class ReproductionResult:
    """All cells of all seeds, and the numbers to stand beside.

    columns        (heading, protocol, attack) of the table, in order; attack "clean" and "worst" as well as row names
    start_seconds  wall time of training what the cells start from
    demonstration  whether it ran on a small part of the data, to show how it works rather than to measure
    """

    title: str
    dataset: str
    network: str
    cells: tuple[Cell, ...]
    columns: tuple[tuple[str, str, str], ...]
    published: tuple[Published, ...]
    experiments: Mapping[str, Any]
    start_seconds: float = 0.0
    demonstration: bool = False

    def phases(self) -> dict[str, float]:
        """Seconds of wall time by what was done."""
        found = {"training of the start": self.start_seconds}
        for cell in self.cells:
            phase = f"{cell.training} training"
            found[phase] = found.get(phase, 0.0) + cell.training_seconds
        for cell in self.cells:
            for name, evaluation in cell.evaluations.items():
                found[f"protocol {name}"] = found.get(f"protocol {name}", 0.0) + evaluation.seconds
        return found

    def to_json(self) -> dict[str, Any]:
        content = {"format": FORMAT} | {key: value for key, value in asdict(self).items() if key not in ("cells",)}
        content["cells"] = [
            {key: value for key, value in vars(cell).items() if key != "evaluations"}
            | {"evaluations": {name: found.to_json() for name, found in cell.evaluations.items()}}
            for cell in self.cells
        ]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ReproductionResult":
        """The inverse of `to_json`.  Raises ConfigError for another format."""
        form = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        if form != FORMAT:
            raise ConfigError(f"a comparison got format {form!r}; expected {FORMAT!r}")
        cells = tuple(
            Cell(**cell | {"evaluations": {n: Evaluation.from_json(e) for n, e in cell["evaluations"].items()}})
            for cell in content["cells"]
        )
        return cls(
            content["title"],
            content["dataset"],
            content["network"],
            cells,
            tuple((heading, protocol, attack) for heading, protocol, attack in content["columns"]),
            tuple(Published(**number) for number in content["published"]),
            content["experiments"],
            content.get("start_seconds", 0.0),
            # Files without the field come from data sets that say it in their names.
            content.get("demonstration", "sample" in content["dataset"]),
        )

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "ReproductionResult":
        """Read what `save` wrote.  Raises ConfigError if it is something else."""
        return read_json(path, "comparison", cls.from_json)


class NetworkKind(NamedTuple):
    """Which network of the 2x2, whatever its seed."""

    neuron: str
    training: str

    def __str__(self) -> str:
        trained = "clean-trained" if self.training == "clean" else f"trained with {self.training}"
        return f"{self.neuron}, {trained}"


def groups(comparison: ReproductionResult) -> dict[NetworkKind, list[Cell]]:
    """The cells of each network over seeds, in the order they come."""
    found: dict[NetworkKind, list[Cell]] = {}
    for cell in comparison.cells:
        found.setdefault(NetworkKind(cell.neuron, cell.training), []).append(cell)
    return found
