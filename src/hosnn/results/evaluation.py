"""The outcome of an evaluation as a value: one row per attack, one entry per sample index.

Rendering is elsewhere and a pure function of this.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hosnn.errors import ConfigError
from hosnn.files import read_json, write_json
from hosnn.results.check import Check, Severity, worst
from hosnn.results.statistics import Interval, proportion, wilson

FORMAT = "hosnn-evaluation-2"
FORMER = "hosnn-evaluation-1"
"""Without panels, checks and facts about the network; its one curve is now the panel "eps"."""


@dataclass(frozen=True)
class AttackResult:
    """What one attack did.

    predictions  class predicted for each sample after the attack, in the order of `Evaluation.index`;
                 -1 for a sample it did not see because an earlier attack of a cascade had won it already
    eps          budget in pixel units; seconds: wall time, summed over workers
    kind         white-box, queries (no gradient used), transfer or control
    method, estimator  its place in the matrix: the attack, and how the model was differentiated ("" if not at all)
    steps        iterations or queries, 0 if it does not matter
    forward, backward  samples sent through the model (of a transfer attack, through the other model)
    """

    attack: str
    threat: str
    eps: float
    predictions: tuple[int, ...]
    seconds: float
    kind: str = "white-box"
    method: str = ""
    estimator: str = ""
    steps: int = 0
    forward: int = 0
    backward: int = 0


@dataclass(frozen=True)
class Panel:
    """Attacks that all ran in full on the same first images: a curve, the matrix, the search, or controls."""

    name: str
    rows: tuple[AttackResult, ...]


@dataclass(frozen=True)
class Network:
    """What was found inside the model.

    spiking   hosnn: layers of ours, which gradient estimators apply to; foreign: it fires spikes by layers that are
              not ours; none: no spikes seen; unknown: nothing was looked at
    layers    number of our spiking layers; adaptive: of these, with an adapting threshold
    gradient  whether the scores depend on the input by way of autograd
    random    whether two looks at the same images differ
    """

    spiking: str = "unknown"
    layers: int = 0
    adaptive: int = 0
    parameters: int = 0
    gradient: bool = True
    random: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of one model under one protocol.

    index    position of each sample in the original test split; labels and clean predictions in the same order
    settings `Protocol.settings`, a hash of every attack's parameters
    rows     the protocol's attacks; a sample counts as robust only if every row left it correct
    seconds  wall time; what earlier calls or shards did is counted as if this one had done it
    panels   further attacks on the first images: "search", "eps", "steps", "matrix", "controls"
    checks   whether the numbers can be believed
    skipped  attacks of the protocol that could not apply, each with the reason
    clamped  whether attacked images had to stay in the valid pixel range
    """

    protocol: str
    description: str
    threat: str
    cascade: bool
    settings: str
    model: str
    model_sha256: str
    dataset: str
    dataset_sha256: str
    seed: int
    index: tuple[int, ...]
    labels: tuple[int, ...]
    clean: tuple[int, ...]
    rows: tuple[AttackResult, ...]
    panels: tuple[Panel, ...]
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    checks: tuple[Check, ...] = ()
    network: Network = Network()
    skipped: tuple[str, ...] = ()
    clamped: bool = True

    @property
    def samples(self) -> int:
        return len(self.index)

    @property
    def clean_accuracy(self) -> float:
        return proportion(self._clean_correct())

    def correct_after(self, row: AttackResult) -> list[bool]:
        """Which samples are correct after this attack.  In a cascade a sample already lost stays lost."""
        return [guess == label for guess, label in zip(row.predictions, self.labels, strict=False)]

    def accuracy(self, attack: str) -> float:
        """Accuracy after one attack (in a cascade: after it and all before it).  Raises ConfigError for no such row."""
        return proportion(self.correct_after(self.row(attack)))

    def interval(self, attack: str | None = None) -> Interval:
        """Wilson's 95 % interval of `accuracy(attack)`, or of the clean accuracy."""
        correct = self._clean_correct() if attack is None else self.correct_after(self.row(attack))
        return wilson(sum(correct), len(correct))

    def row(self, attack: str) -> AttackResult:
        for row in self.rows:
            if row.attack == attack:
                return row
        raise ConfigError(
            f"no attack {attack!r} in this evaluation; it has {', '.join(row.attack for row in self.rows)}"
        )

    @property
    def robust(self) -> list[bool]:
        """Which samples survive everything: correct when clean and after every attack."""
        survivors = self._clean_correct()
        for row in self.rows:
            survivors = [alive and correct for alive, correct in zip(survivors, self.correct_after(row), strict=True)]
        return survivors

    @property
    def worst_case(self) -> float:
        """Robust accuracy: the share of samples that survive everything."""
        return proportion(self.robust)

    @property
    def worst_interval(self) -> Interval:
        """Wilson's 95 % interval of the worst case."""
        return wilson(sum(self.robust), self.samples)

    def panel(self, name: str) -> tuple[AttackResult, ...]:
        """The rows of a panel; none if the protocol has no such panel."""
        return next((panel.rows for panel in self.panels if panel.name == name), ())

    @property
    def curve(self) -> tuple[AttackResult, ...]:
        """The same attack at growing eps."""
        return self.panel("eps")

    @property
    def curve_attack(self) -> str:
        """The attack of the curve, without its eps; "" without a curve.

        Protocols that give no method name these attacks "ATTACK @ EPS".
        """
        if not self.curve:
            return ""
        method = self.curve[0].method or self.curve[0].attack
        return method.partition(" @ ")[0]

    @property
    def verdict(self) -> Severity:
        """The worst severity of the checks."""
        return worst(self.checks)

    def passes(self) -> tuple[int, int]:
        """Samples sent forward and backward through the model by all attacks."""
        rows = [*self.rows, *(row for panel in self.panels for row in panel.rows)]
        return sum(row.forward for row in rows), sum(row.backward for row in rows)

    def curve_points(self) -> list[tuple[float, float, Interval]]:
        """(eps, accuracy, interval) over the curve, with the clean accuracy of the same samples at eps = 0."""
        if not self.curve:
            return []
        count = len(self.curve[0].predictions)
        clean = self._clean_correct()[:count]
        points = [(0.0, proportion(clean), wilson(sum(clean), count))]
        for row in self.curve:
            correct = self.correct_after(row)
            points.append((row.eps, proportion(correct), wilson(sum(correct), count)))
        return points

    def to_json(self) -> dict[str, Any]:
        """Everything, with the accuracies that follow from it for readers of the file."""
        summary = {
            "clean_accuracy": self.clean_accuracy,
            "worst_case_accuracy": self.worst_case,
            "worst_case_interval_95": list(self.worst_interval),
            "accuracy": {row.attack: self.accuracy(row.attack) for row in self.rows},
            "verdict": self.verdict,
        }
        content: dict[str, Any] = {"format": FORMAT, "summary": summary, "samples": self.samples} | asdict(self)
        for check in content["checks"]:  # JSON has no NaN
            check["value"] = check["value"] if math.isfinite(check["value"]) else None
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_json`.  Raises ConfigError for another format."""
        form = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        if form not in (FORMAT, FORMER):
            raise ConfigError(f"an evaluation got format {form!r}; expected {FORMAT!r}")
        given = {key: value for key, value in content.items() if key not in ("format", "summary", "samples")}
        if form == FORMER:
            curve = given.pop("curve")
            given["panels"] = [{"name": "eps", "rows": curve}] if curve else []
        for key in ("index", "labels", "clean", "skipped"):
            given[key] = tuple(given.get(key, ()))
        given["rows"] = _rows(given["rows"])
        given["panels"] = tuple(Panel(panel["name"], _rows(panel["rows"])) for panel in given["panels"])
        given["checks"] = tuple(
            Check(**check | {"value": float("nan") if check["value"] is None else check["value"]})
            for check in given.get("checks", ())
        )
        given["network"] = Network(**given.get("network", {}))
        return cls(**given)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` wrote.  Raises ConfigError if it is something else."""
        return read_json(path, "evaluation", cls.from_json)

    def _clean_correct(self) -> list[bool]:
        return [guess == label for guess, label in zip(self.clean, self.labels, strict=True)]


def _rows(content: Iterable[Mapping[str, Any]]) -> tuple[AttackResult, ...]:
    return tuple(AttackResult(**{**row, "predictions": tuple(row["predictions"])}) for row in content)
