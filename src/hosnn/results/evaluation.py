"""The outcome of an evaluation as a value: one row per attack, one entry per sample index.

Reports are elsewhere and pure functions of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field, computed_field

from hosnn.errors import ConfigError
from hosnn.results.check import Check, Verdict, tally, worst
from hosnn.results.consistency import check_evaluation, check_summary, check_threat
from hosnn.results.document import (
    Amount,
    ContentHash,
    Count,
    Document,
    Flag,
    Integer,
    Machine,
    Name,
    SettingsHash,
    ThreatText,
    Versions,
)
from hosnn.results.evaluation_parts import AttackResult, Network, Panel, Summary
from hosnn.results.records import Record, attack_records, html_table, image_records, text_table
from hosnn.results.roles import Strength, with_roles_and_strength
from hosnn.results.statistics import Interval, proportion, wilson
from hosnn.results.text import percent

__all__ = ["FORMER_FORMAT", "AttackResult", "Evaluation", "Network", "Panel", "Summary"]

FORMER_FORMAT = "hosnn-evaluation-1"
"""Without panels, checks and facts about the network; its curve is read as the panel "eps"."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Document):
    """Robustness of one model under one protocol: what every attack did to every image, and whether the numbers can be
    believed."""

    FORMAT: ClassVar[str] = "hosnn-evaluation-2"
    KIND: ClassVar[str] = "evaluation"
    DERIVED: ClassVar[tuple[str, ...]] = ("format", "summary", "samples")

    protocol: Name
    """Name of the protocol, e.g. standard; "standard, attacks only" without its panels and checks."""
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
    network: Network = field(default_factory=Network)
    """Facts about the model, found by inspecting it."""
    skipped: tuple[str, ...] = ()
    """Attacks of the protocol that could not be run, each with the reason."""
    clamped: Flag = True
    """Whether attacked images had to stay in the valid pixel range."""
    strength: Strength | None = None
    """How much the protocol's robust accuracy says; null: not rated."""
    attacks_only: Flag = False
    """Whether the protocol was run without its panels and checks, for its worst case alone."""

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

    @property
    def not_lost_when_clean(self) -> list[bool]:
        """Per image, whether it is right without an attack; where ties are recorded, a tied one is not."""
        tied = set(self.clean_tied or ())
        return [right and at not in tied for at, right in enumerate(self.correct_when_clean)]

    def correct_after(self, result: AttackResult) -> list[bool]:
        """Per image, whether it is right after this attack; in a cascade, after it and all before it."""
        correct = [guess == label for guess, label in zip(result.predictions, self.labels, strict=False)]
        for at in self._tied_after(result):
            correct[at] = False
        return correct

    def _tied_after(self, result: AttackResult) -> set[int]:
        """Images that are tied after an attack; in a cascade, after it or any before it."""
        tied = set(result.tied or ())
        if self.cascade and any(row is result for row in self.rows):
            for row in self.rows:
                if row is result:
                    break
                tied.update(row.tied or ())
        return tied

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
        robust = self.not_lost_when_clean
        for row in self.rows:
            robust = [before and after for before, after in zip(robust, self.correct_after(row), strict=True)]
        return robust

    @property
    def robust_by_argmax(self) -> list[bool]:
        """`robust` if the first of the classes that share the highest logit counted as the prediction."""
        after = zip(self.clean, *(row.predictions for row in self.rows), strict=True)
        return [set(guesses) == {label} for guesses, label in zip(after, self.labels, strict=True)]

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
    def verdict(self) -> Verdict:
        """The worst severity of the checks; "none" if nothing was checked."""
        return worst(self.checks)

    def passes(self) -> tuple[int, int]:
        """Samples sent forward and backward through the model by all attacks."""
        rows = [*self.rows, *(row for panel in self.panels for row in panel.rows)]
        return sum(row.forward for row in rows), sum(row.backward for row in rows)

    def curve_points(self) -> list[tuple[float, float, Interval]]:
        """(eps, accuracy, interval) over the curve; at eps = 0 of the same samples when clean, ties lost."""
        count = len(self.curve[0].predictions) if self.curve else 0
        clean = self.not_lost_when_clean[:count]
        points = [(0.0, proportion(clean), wilson(sum(clean), count))] if count else []
        for row in self.curve:
            correct = self.correct_after(row)
            points.append((row.eps, proportion(correct), wilson(sum(correct), count)))
        return points

    def to_records(self, *, per_image: bool = False) -> list[Record]:
        """What `pandas.DataFrame` takes: a record for the clean images, for each attack and for the worst case.

        per_image  a record for each image after each of these instead, whose mean of `correct` is the accuracy

        The clean images are called "clean", the worst case "worst case"; both are of no kind.  Accuracy and its 95 %
        interval (low, high) are fractions of 1, eps is in pixel units; broken: images that are wrong for the first
        time; a prediction of -1: none was made.
        """
        clean = AttackResult(attack="clean", kind="", threat=self.threat, eps=0.0, predictions=self.clean, seconds=0.0)
        worst_case = AttackResult(
            attack="worst case",
            kind="",
            threat=self.threat,
            eps=max((row.eps for row in self.rows), default=0.0),
            predictions=(-1,) * self.samples,
            seconds=sum(row.seconds for row in self.rows),
            forward=sum(row.forward for row in self.rows),
            backward=sum(row.backward for row in self.rows),
        )
        results = [clean, *self.rows, worst_case]
        correct = [self.correct_when_clean, *map(self.correct_after, self.rows), self.robust]
        run = {"model": self.model, "dataset": self.dataset, "protocol": self.protocol, "seed": self.seed}
        records = (
            image_records(results, correct, self.index, self.labels) if per_image else attack_records(results, correct)
        )
        return [run | record for record in records]

    @property
    def title(self) -> str:
        """Model, protocol, threat and images in one line."""
        extent = " (no panels, no checks)" if self.attacks_only else ""
        return f"{self.model}: {self.protocol}{extent}, {self.threat}, {self.samples:,} images of {self.dataset}"

    def __str__(self) -> str:
        """A table of a few lines: accuracy without attack, after the attacks, in the worst case; the checks."""
        return text_table(self.title, self.to_records(), tally(self.checks))

    def __repr__(self) -> str:
        accuracies = f"clean {percent(self.clean_accuracy)} %, worst case {percent(self.worst_case)} %"
        return f"<Evaluation of {self.title}: {accuracies}; {tally(self.checks)}>"

    def _repr_html_(self) -> str:
        """The same table in a notebook."""
        return html_table(self.title, self.to_records(), tally(self.checks))

    def check(self, content: Mapping[str, Any]) -> None:
        columns = {"labels": self.labels, "clean": self.clean}
        check_evaluation(self.index, columns, self.clean_tied, self.rows, self.panels)
        check_threat(self.threat)
        if content.get("format") == self.FORMAT and "summary" in content:
            check_summary(content["summary"], self.to_json()["summary"])

    @classmethod
    def fields_in(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields in a file of this format or the former one."""
        if content.get("format") != FORMER_FORMAT:
            return with_roles_and_strength(super().fields_in(content))
        fields = {name: value for name, value in content.items() if name not in (*cls.DERIVED, "curve")}
        curve = content.get("curve")
        return with_roles_and_strength(fields | {"panels": [{"name": "eps", "rows": curve}] if curve else []})
