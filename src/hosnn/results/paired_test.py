"""Two models on the same samples: which holds more, and whether that can be told from chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hosnn.errors import ConfigError
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval, bootstrap_interval, mcnemar, paired_interval

CLEAN = "clean"
LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """Two models compared sample by sample.

    samples      how many, each seen by both; first_only, second_only, both, neither: by whom it is classified right
    difference   accuracy of the first minus that of the second, in [-1, 1]
    interval     its 95 % interval in closed form (`paired_interval`); bootstrap: the same by resampling
    p_value      McNemar's exact test that neither holds more
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
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Paired":
        """Of what is right, sample by sample.  Raises ConfigError for different numbers of samples, or none."""
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

    def swapped(self) -> "Paired":
        """The same comparison seen from the second model."""
        return Paired(
            self.samples,
            self.second_only,
            self.first_only,
            self.both,
            self.neither,
            -self.difference,
            Interval(-self.interval.high, -self.interval.low),
            Interval(-self.bootstrap.high, -self.bootstrap.low),
            self.p_value,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"interval": list(self.interval), "bootstrap": list(self.bootstrap)}


def compare(first: Evaluation, second: Evaluation, attack: str | None = None) -> Paired:
    """Two evaluations, paired by sample.

    attack  the name of a row; None: the worst case over all rows; "clean": accuracy without attack
    Raises ConfigError if `refuse_unpaired` does.
    """
    refuse_unpaired(first, second, attack)
    return Paired.of(_right(first, attack), _right(second, attack))


def refuse_unpaired(first: Evaluation, second: Evaluation, attack: str | None = None) -> None:
    """Raises ConfigError if two evaluations cannot be paired.

    That is: if they saw other samples or labels, or were attacked otherwise: a row under another threat or eps, the
    worst case by another protocol or threat.  (Within one protocol attacks fit themselves to the model: other
    surrogates found, other twins to transfer from.)
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
    if attack != CLEAN:
        _refuse_other_attacks(first, second, attack)


def sentence(paired: Paired, first: str, second: str, p_value: float | None = None) -> str:
    """What was found, in plain words; p_value: corrected for several comparisons (`holm`), if there were any."""
    name = "McNemar p" if p_value is None else "McNemar p, corrected,"
    p = paired.p_value if p_value is None else p_value
    if p >= LEVEL:
        low, high = paired.interval
        return (
            f"No difference between {first} and {second} can be told on {paired.samples:,} samples "
            f"({first} minus {second}: {100 * paired.difference:+.1f} points, 95 % interval {100 * low:.1f} .. "
            f"{100 * high:.1f}, {name} {_written(p)}): either may hold more."
        )
    if paired.difference < 0:
        return sentence(paired.swapped(), second, first, p_value)
    low, high = paired.interval
    return (
        f"{first} keeps {100 * paired.difference:.1f} points more than {second} (95 % interval {100 * low:.1f} .. "
        f"{100 * high:.1f}, {name} {_written(p)}, n = {paired.samples:,}): {paired.first_only:,} samples only {first} "
        f"gets right, {paired.second_only:,} only {second}, more than chance explains."
    )


def _right(evaluation: Evaluation, attack: str | None) -> list[bool]:
    if attack is None:
        return evaluation.robust
    if attack == CLEAN:
        return [guess == label for guess, label in zip(evaluation.clean, evaluation.labels, strict=True)]
    return evaluation.correct_after(evaluation.row(attack))


def _refuse_other_attacks(first: Evaluation, second: Evaluation, attack: str | None) -> None:
    if attack is None:
        settings = [(found.protocol, found.threat) for found in (first, second)]
    else:
        rows = [found.row(attack) for found in (first, second)]
        settings = [(row.threat, f"at eps {row.eps:.6g}") for row in rows]
    if settings[0] != settings[1]:
        raise ConfigError(
            f"evaluations of {first.model} and {second.model} were attacked differently ({' '.join(settings[0])} and "
            f"{' '.join(settings[1])}) and cannot be paired; evaluate both under the same protocol and threat"
        )


def _written(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.001 else "< 0.001"
