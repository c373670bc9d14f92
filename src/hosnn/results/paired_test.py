"""Two models on the same images: which is right on more of them, and whether chance could explain the difference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hosnn.errors import ConfigError
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval, bootstrap_interval, mcnemar, paired_interval

CLEAN = "clean"
SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two models compared sample by sample.

    samples      number of samples; first_only, second_only, both, neither: of these, by which of the models are right
    difference   accuracy of the first minus that of the second, in [-1, 1]
    interval     its 95 % interval in closed form (`paired_interval`); bootstrap: the same by resampling
    p_value      McNemar's exact test of the hypothesis that both are right equally often
    """

    samples: int
    first_only: int
    second_only: int
    both: int
    neither: int
    difference: float
    interval: Interval
    bootstrap: Interval
    p_value: float

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "PairedTest":
        """The test of two models, given per sample whether each is right.

        Raises ConfigError for different numbers of samples, or none.
        """
        if len(first) != len(second) or len(first) == 0:
            raise ConfigError(f"a paired comparison got {len(first)} and {len(second)} samples; expected the same ones")
        pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
        first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
        return cls(
            samples=len(pairs),
            first_only=first_only,
            second_only=second_only,
            both=pairs.count((True, True)),
            neither=pairs.count((False, False)),
            difference=(first_only - second_only) / len(pairs),
            interval=paired_interval(first_only, second_only, len(pairs)),
            bootstrap=bootstrap_interval(first_only, second_only, len(pairs)),
            p_value=mcnemar(first_only, second_only),
        )

    def swapped(self) -> "PairedTest":
        """The same test with the second model first."""
        return replace(
            self,
            first_only=self.second_only,
            second_only=self.first_only,
            difference=-self.difference,
            interval=Interval(-self.interval.high, -self.interval.low),
            bootstrap=Interval(-self.bootstrap.high, -self.bootstrap.low),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"interval": list(self.interval), "bootstrap": list(self.bootstrap)}


def compare(first: Evaluation, second: Evaluation, attack: str | None = None) -> PairedTest:
    """The paired test of two evaluations.

    attack  name of an attack; None: the worst case over all attacks; "clean": accuracy without attack
    Raises ConfigError if `check_pairable` does.
    """
    check_pairable(first, second, attack)
    return PairedTest.of(_right(first, attack), _right(second, attack))


def check_pairable(first: Evaluation, second: Evaluation, attack: str | None = None) -> None:
    """Raises ConfigError if two evaluations are not of the same images and labels, or were attacked differently.

    One attack must have the same threat and eps, the worst case the same protocol and threat.  Within a protocol,
    attacks that adapt to the model may differ (in gradient estimator or transfer source).
    """
    for what, one, other in (
        ("data sets", first.dataset_sha256, second.dataset_sha256),
        ("samples", first.index, second.index),
        ("labels", first.labels, second.labels),
    ):
        if one != other:
            raise ConfigError(
                f"evaluations of {first.model} and {second.model} have different {what} and cannot be paired; evaluate "
                "both on the same split, as many samples of it"
            )
    if (first.clean_tied is None) != (second.clean_tied is None) and attack != CLEAN:
        raise ConfigError(
            f"evaluations of {first.model} and {second.model} count ties differently, one as lost and one by the order "
            "of the classes, and cannot be paired; evaluate both with the same version of hosnn and the same protocol"
        )
    if attack != CLEAN:
        _check_same_attack(first, second, attack)


def outcome_sentence(paired: PairedTest, first: str, second: str, p_value: float | None = None) -> str:
    """The outcome in one sentence.

    p_value  corrected for several comparisons (`holm`); None: that of the test alone
    """
    name = "McNemar p" if p_value is None else "McNemar p, corrected,"
    p = paired.p_value if p_value is None else p_value
    if p >= SIGNIFICANCE:
        low, high = paired.interval
        return (
            f"{first} and {second} do not differ significantly on {paired.samples:,} samples "
            f"({first} minus {second}: {100 * paired.difference:+.1f} points, 95 % interval {100 * low:.1f} .. "
            f"{100 * high:.1f}, {name} {p_text(p)}): either may be the more accurate."
        )
    if paired.difference < 0:
        return outcome_sentence(paired.swapped(), second, first, p_value)
    low, high = paired.interval
    return (
        f"{first} is {100 * paired.difference:.1f} points more accurate than {second} (95 % interval "
        f"{100 * low:.1f} .. {100 * high:.1f}, {name} {p_text(p)}, n = {paired.samples:,}): only {first} is right on "
        f"{paired.first_only:,} samples, only {second} on {paired.second_only:,}."
    )


def _right(evaluation: Evaluation, attack: str | None) -> list[bool]:
    if attack is None:
        return evaluation.robust
    if attack == CLEAN:
        return evaluation.correct_when_clean
    return evaluation.correct_after(evaluation.row(attack))


def _check_same_attack(first: Evaluation, second: Evaluation, attack: str | None) -> None:
    if attack is None:
        settings = [(evaluation.protocol, evaluation.threat) for evaluation in (first, second)]
    else:
        rows = [evaluation.row(attack) for evaluation in (first, second)]
        settings = [(row.threat, f"at eps {row.eps:.6g}") for row in rows]
    if settings[0] != settings[1]:
        raise ConfigError(
            f"evaluations of {first.model} and {second.model} were attacked differently ({' '.join(settings[0])} and "
            f"{' '.join(settings[1])}) and cannot be paired; evaluate both under the same protocol and threat"
        )


def paired_texts(paired: PairedTest, p_value: float) -> tuple[str, str, str, str]:
    """Cells of a table: the difference in points with its interval, only the first right, only the second right, p.

    p_value  corrected for all rows of the table
    """
    low, high = (f"{100 * end:+.1f}" for end in paired.interval)
    difference = f"{100 * paired.difference:+.1f} [{low}, {high}]"
    return difference, f"{paired.first_only:,}", f"{paired.second_only:,}", p_text(p_value).removeprefix("= ")


def p_text(p: float) -> str:
    """A p-value after the word "p", such as "= 0.012"."""
    return f"= {p:.2g}" if p >= 0.001 else "< 0.001"
