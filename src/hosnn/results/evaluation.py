"""The outcome of an evaluation as a value: one row per attack, one entry per sample index.

Rendering is elsewhere and a pure function of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, computed_field

from hosnn.errors import ConfigError
from hosnn.results.check import Check, Severity, worst
from hosnn.results.document import (
    Amount,
    ContentHash,
    Count,
    Document,
    Flag,
    Fraction,
    Integer,
    Machine,
    Name,
    SettingsHash,
    ThreatText,
    Versions,
)
from hosnn.results.roles import Role, Strength, with_roles_and_strength
from hosnn.results.statistics import Interval, proportion, wilson

FORMER_FORMAT = "hosnn-evaluation-1"
"""Without panels, checks and facts about the network; its curve is read as the panel "eps"."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """The outcome of one attack."""

    attack: Name
    """Name of the attack, unique among the rows of the protocol."""
    threat: ThreatText
    """The threat model of this attack."""
    eps: Amount
    """Budget: the largest norm of a perturbation, in pixel units (1 is the whole range of a pixel)."""
    predictions: tuple[Annotated[int, Field(strict=True, ge=-1)], ...]
    """Class predicted for each image after the attack, in the order of index; -1 for an image that it did not attack
    because an earlier attack of the cascade had broken it.  As long as index; in a panel, for the first images only."""
    tied: tuple[Count, ...] | None = None
    """Positions of the images whose label shares the highest logit with another class after the attack, which counts as
    broken; null: ties count by the order of the classes."""
    denied: tuple[Count, ...] | None = None
    """Positions of the images that a pass with gradients, as the attack's, sees misclassified, and the pass without
    gradients that gives the prediction does not; null: not recorded."""
    seconds: Amount
    """Time in seconds, summed over workers."""
    kind: Annotated[str, Field(pattern="^(white-box|queries|transfer|control)$")] = "white-box"
    """white-box: it differentiates the model; queries: it uses outputs only; transfer: crafted on another model;
    control: no real attack, such as noise."""
    method: str = ""
    """The attack without its gradient estimator, which is its column in the matrix; empty if not given."""
    estimator: str = ""
    """How the model was differentiated; empty if the attack itself decides or uses no gradient."""
    steps: Count = 0
    """Iterations or queries; 0 if not shown."""
    forward: Count = 0
    """Images sent forward through the model (in a transfer attack: the source model); 0 if not counted."""
    backward: Count = 0
    """Images sent backward; 0 if not counted."""
    role: Role | None = None
    """What checks use the attack for; null: no special role."""


@dataclass(frozen=True)
class Panel:
    """Attacks that all ran in full on the same first images."""

    name: Name
    """search: the search for the best gradient estimators; eps, steps: curves; matrix: attacks by gradient estimators;
    controls: attacks for the checks.  Other names are allowed."""
    rows: tuple[AttackResult, ...]
    """The attacks."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Facts about the model, found by inspecting it."""

    spiking: Annotated[str, Field(pattern="^(hosnn|foreign|none|unknown)$")] = "unknown"
    """hosnn: spiking layers of this package, to which gradient estimators apply; foreign: spikes from layers of another
    library; none: no spikes found; unknown: not inspected."""
    layers: Count = 0
    """Number of this package's spiking layers."""
    adaptive: Count = 0
    """Of these, layers with an adapting threshold."""
    parameters: Count = 0
    """Number of parameters; 0 if not counted."""
    gradient: Flag = True
    """Whether automatic differentiation finds a path from the scores to the input."""
    random: Flag = False
    """Whether two passes over the same images differ."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Accuracies that follow from the predictions, for readers of the file."""

    clean_accuracy: Fraction
    """Share of images that are right without an attack, a fraction of 1."""
    worst_case_accuracy: Fraction
    """Share of images that are right when clean and after every attack of rows, a fraction of 1; where ties are
    recorded, a label that shares the highest logit is not right."""
    worst_case_by_argmax: Fraction | None = None
    """The same if the predicted class decides where the highest logit is shared; null: ties were not recorded."""
    worst_case_interval_95: tuple[Fraction, Fraction]
    """Wilson's 95 % interval of the worst-case accuracy: low, high; fractions of 1."""
    accuracy: Mapping[str, Fraction]
    """Share of images that are right after each attack of rows, by its name; in a cascade, after it and all before it;
    fractions of 1."""
    verdict: Severity
    """The worst severity among the checks; pass without any."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Document):
    """Robustness of one model under one protocol: what every attack did to every image, and whether the numbers can be
    believed."""

    FORMAT: ClassVar[str] = "hosnn-evaluation-2"
    KIND: ClassVar[str] = "evaluation"
    DERIVED: ClassVar[tuple[str, ...]] = ("format", "summary", "samples")

    protocol: Name
    """Name of the protocol, e.g. standard."""
    description: str
    """The protocol in one line."""
    threat: ThreatText
    """The threat model."""
    cascade: Flag
    """Whether each attack got only the images that those before it had not broken."""
    settings: SettingsHash
    """SHA-256 of all parameters of the attacks and of how they were run, except for the number of images."""
    model: str
    """Name of the model."""
    model_sha256: ContentHash
    """SHA-256 of the model's parameters and buffers; empty for a plain function."""
    dataset: str
    """Name of the data set; empty for plain tensors."""
    dataset_sha256: ContentHash
    """SHA-256 of the data set; empty for plain tensors."""
    seed: Integer
    """Seed of the attacks' random numbers."""
    index: tuple[Count, ...]
    """Position of each image in the original test split."""
    labels: tuple[Count, ...]
    """True class of each image, in the order of index."""
    clean: tuple[Count, ...]
    """Class predicted for each image without an attack, in the order of index."""
    clean_tied: tuple[Count, ...] | None = None
    """Positions of the images whose label shares the highest logit with another class without an attack; null: not
    recorded."""
    rows: tuple[AttackResult, ...]
    """The protocol's attacks in their order.  An image counts as robust only if it is right when clean and after every
    one of them."""
    panels: tuple[Panel, ...]
    """Further attacks, which do not enter the worst case."""
    seconds: Amount
    """Wall time of the whole evaluation in seconds, including the work of earlier calls and of shards."""
    versions: Versions
    """Versions of the software that made the result, by its name."""
    machine: Machine
    """The hardware: processor, cores, threads, gpu, system; and backend, the kernels that ran the spiking layers."""
    checks: tuple[Check, ...] = ()
    """Whether the numbers can be believed; empty if nothing was checked."""
    network: Network = Network()
    """Facts about the model, found by inspecting it."""
    skipped: tuple[str, ...] = ()
    """Attacks of the protocol that could not be run, each with the reason."""
    clamped: Flag = True
    """Whether attacked images had to stay in the valid pixel range."""
    strength: Strength | None = None
    """How much the protocol's robust accuracy says; null: not rated."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> Summary:
        """Accuracies that follow from the predictions, for readers of the file."""
        return Summary(
            clean_accuracy=self.clean_accuracy,
            worst_case_accuracy=self.worst_case,
            worst_case_by_argmax=self.worst_case_by_argmax,
            worst_case_interval_95=self.worst_interval,
            accuracy={row.attack: self.accuracy(row.attack) for row in self.rows},
            verdict=self.verdict,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def samples(self) -> Annotated[int, Field(ge=1)]:
        """Number of images, the length of index, labels and clean."""
        return len(self.index)

    @property
    def clean_accuracy(self) -> float:
        return proportion(self.correct_when_clean)

    @property
    def correct_when_clean(self) -> list[bool]:
        """Per image, whether its prediction without an attack is right; of tied classes the first is predicted."""
        return [guess == label for guess, label in zip(self.clean, self.labels, strict=True)]

    def correct_after(self, result: AttackResult) -> list[bool]:
        """Per image, whether it is right after this attack; in a cascade, after it and all before it."""
        correct = [guess == label for guess, label in zip(result.predictions, self.labels, strict=False)]
        for tied in result.tied or ():
            correct[tied] = False
        return correct

    def accuracy(self, attack: str) -> float:
        """Accuracy after one attack (in a cascade: after it and all before it).  Raises ConfigError for no such row."""
        return proportion(self.correct_after(self.row(attack)))

    def interval(self, attack: str | None = None) -> Interval:
        """Wilson's 95 % interval of `accuracy(attack)`, or of the clean accuracy."""
        correct = self.correct_when_clean if attack is None else self.correct_after(self.row(attack))
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
        """Per image, whether it is right when clean and after every attack; where ties are recorded, never tied."""
        robust = self.correct_when_clean
        for tied in self.clean_tied or ():
            robust[tied] = False
        for row in self.rows:
            robust = [before and after for before, after in zip(robust, self.correct_after(row), strict=True)]
        return robust

    @property
    def robust_by_argmax(self) -> list[bool]:
        """`robust`, had the predicted class counted wherever the highest logit is shared: an upper bound, because
        attacks stop at a tie."""
        predicted = [self.clean, *(row.predictions for row in self.rows)]
        robust = [True] * self.samples
        tied_before: set[int] = set()
        for guesses, tied in zip(predicted, (self.clean_tied, *(row.tied for row in self.rows)), strict=True):
            for at, (guess, label) in enumerate(zip(guesses, self.labels, strict=True)):
                robust[at] &= guess == label or (guess == -1 and at in tied_before)
            tied_before.update(tied or ())
        return robust

    @property
    def worst_case_by_argmax(self) -> float | None:
        """The share of `robust_by_argmax`; None where ties were not recorded."""
        return None if self.clean_tied is None else proportion(self.robust_by_argmax)

    @property
    def worst_case(self) -> float:
        """Robust accuracy: the share of images that are robust."""
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
        clean = self.correct_when_clean[:count]
        points = [(0.0, proportion(clean), wilson(sum(clean), count))]
        for row in self.curve:
            correct = self.correct_after(row)
            points.append((row.eps, proportion(correct), wilson(sum(correct), count)))
        return points

    @classmethod
    def fields_in(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in a file of this format or the former one."""
        if content.get("format") != FORMER_FORMAT:
            return with_roles_and_strength(super().fields_in(content))
        fields = {name: value for name, value in content.items() if name not in (*cls.DERIVED, "curve")}
        curve = content.get("curve")
        return with_roles_and_strength(fields | {"panels": [{"name": "eps", "rows": curve}] if curve else []})
