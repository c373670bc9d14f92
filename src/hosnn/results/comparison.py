"""Several models under the same protocols: one table, and which differences are significant."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, TypeVar

from hosnn.errors import ConfigError, nearest
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.doubts import doubts
from hosnn.results.evaluation import AttackResult, Evaluation
from hosnn.results.paired_test import PairedTest, check_pairable, compare, outcome_sentence
from hosnn.results.statistics import holm
from hosnn.results.text import ATTACKS_ONLY, NOT_RUN

T = TypeVar("T")
FORMAT = "hosnn-side-by-side-1"


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    name     what was measured, and under which protocol
    samples  number of images
    correct  by model, how many of them it classifies correctly; no entry where it was not measured
    """

    name: str
    protocol: str
    samples: int
    correct: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "protocol": self.protocol, "samples": self.samples, "kept": self.correct}


@dataclass(frozen=True, kw_only=True)
class PairwiseTest:
    """Two models compared image by image on one measure.

    p_value  corrected for all tests of the table (Holm)
    doubts   reasons not to believe the numbers compared
    """

    measure: str
    first: str
    second: str
    paired: PairedTest
    p_value: float
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        outcome = outcome_sentence(self.paired, self.first, self.second, self.p_value).removesuffix(".")
        return f"{self.measure}: {'; but '.join((outcome, *self.doubts))}."


@dataclass(frozen=True)
class Comparison:
    """Everything measured of each model, and paired tests on the worst case and on attacks asked for.

    checks  by model, then by protocol: the verdict ("none": nothing was checked)
    """

    models: tuple[str, ...]
    measures: tuple[Measure, ...]
    tests: tuple[PairwiseTest, ...]
    checks: dict[str, dict[str, str]]

    def verdicts(self) -> dict[str, list[str]]:
        """A line of the table for each protocol: the verdict of the checks, model by model."""
        protocols = dict.fromkeys(name for verdicts in self.checks.values() for name in verdicts)
        return {
            f"checks ({protocol})": [self.checks[model].get(protocol, NOT_RUN) for model in self.models]
            for protocol in protocols
        }

    def to_json(self) -> dict[str, Any]:
        tests = [asdict(test) | {"paired": test.paired.to_json(), "sentence": str(test)} for test in self.tests]
        measures = [measure.to_json() for measure in self.measures]
        return {"format": FORMAT} | asdict(self) | {"measures": measures, "tests": tests}


def compare_models(
    evaluations: Sequence[Evaluation], tested: Sequence[str] = (), against: str | None = None
) -> Comparison:
    """Evaluations of two models or more, each under one protocol or more.

    tested   names of attacks to compare pairwise, besides each protocol's worst case
    against  test every model against this one only, which comes second; None: every pair
    Raises ConfigError for fewer than two models, a model evaluated twice under one protocol, two models of one name,
    evaluations of one protocol under different threats or on different images, or both whole and as attacks only, and
    for a model `against` or an attack `tested` that is in no evaluation.
    """
    models, tested = tuple(dict.fromkeys(evaluation.model for evaluation in evaluations)), tuple(dict.fromkeys(tested))
    _check_names(evaluations)
    if len(models) < 2:
        raise ConfigError(
            f"got evaluations of {', '.join(models) or 'nothing'} to compare; expected two models or more"
        )
    if against is not None and against not in models:
        raise ConfigError(f"there is no evaluation of {against!r} to test against; there are {', '.join(models)}")
    by_protocol: dict[str, dict[str, Evaluation]] = {}
    for evaluation in evaluations:
        by_model = by_protocol.setdefault(evaluation.protocol, {})
        if evaluation.model in by_model:
            raise ConfigError(
                f"{evaluation.model} comes twice under protocol {evaluation.protocol}; give each evaluation once"
            )
        by_model[evaluation.model] = evaluation
    _check_extent(evaluations)
    for by_model in by_protocol.values():
        first, *others = by_model.values()
        for other in others:
            check_pairable(first, other)
    _check_attacks(tested, evaluations)
    return Comparison(
        models,
        tuple(measure for by_model in by_protocol.values() for measure in _measures(by_model)),
        tuple(_tests(by_protocol, tested, against)),
        _verdicts(by_protocol, models),
    )


def _measures(evaluations: Mapping[str, Evaluation]) -> Iterator[Measure]:
    """Everything measured under one protocol; evaluations by model."""
    first = next(iter(evaluations.values()))
    protocol, samples = first.protocol, first.samples

    def measure(name: str, correct: dict[str, int], samples: int = samples) -> Measure:
        return Measure(f"{name} ({protocol})", protocol, samples, correct)

    yield measure(
        "clean", {model: round(evaluation.clean_accuracy * samples) for model, evaluation in evaluations.items()}
    )
    for name in dict.fromkeys(_measure_name(row) for evaluation in evaluations.values() for row in evaluation.rows):
        correct = {
            model: _right_after_all(evaluation, rows)
            for model, evaluation in evaluations.items()
            if (rows := [row for row in evaluation.rows if _measure_name(row) == name])
        }
        yield measure(f"after {name}" if first.cascade else name, correct)
    if len({row.threat for row in first.rows}) == 1:  # a worst case over several threats means nothing
        yield measure("worst case", {model: sum(evaluation.robust) for model, evaluation in evaluations.items()})
    matrices = _of_one_size(
        {model: matrix for model, evaluation in evaluations.items() if (matrix := attack_matrix(evaluation))},
        lambda matrix: matrix.samples,
    )
    for estimator in dict.fromkeys(name for matrix in matrices.values() for name in matrix.estimators):
        correct = {
            model: round(matrix.by_estimator[matrix.estimators.index(estimator)] * matrix.samples)
            for model, matrix in matrices.items()
            if estimator in matrix.estimators
        }
        yield measure(f"worst case through {estimator}", correct, next(iter(matrices.values())).samples)
    yield from _alone(evaluations, measure)


def _alone(
    evaluations: Mapping[str, Evaluation], measure: Callable[[str, dict[str, int], int], Measure]
) -> Iterator[Measure]:
    """Attacks without gradients on all images of the panel, outside the cascade."""
    rows_of = {
        model: [row for row in evaluation.panel("controls") if row.kind in ("queries", "transfer")]
        for model, evaluation in evaluations.items()
    }
    rows_of = _of_one_size({model: rows for model, rows in rows_of.items() if rows}, lambda it: len(it[0].predictions))
    samples = max((len(rows[0].predictions) for rows in rows_of.values()), default=0)
    for name in dict.fromkeys(_measure_name(row) for rows in rows_of.values() for row in rows):
        correct = {
            model: _right_after_all(evaluations[model], named)
            for model, rows in rows_of.items()
            if (named := [row for row in rows if _measure_name(row) == name])
        }
        yield measure(f"{name} alone", correct, samples)


def _of_one_size(panels: dict[str, T], size: Callable[[T], int]) -> dict[str, T]:
    """The panels by model, without those of fewer images than the largest: counts of both share a line of the table."""
    largest = max(map(size, panels.values()), default=0)
    return {model: panel for model, panel in panels.items() if size(panel) == largest}


def _right_after_all(evaluation: Evaluation, rows: Sequence[AttackResult]) -> int:
    """How many images are right after each of some attacks, such as transfer from several models."""
    return sum(map(all, zip(*map(evaluation.correct_after, rows), strict=True)))


def _measure_name(row: AttackResult) -> str:
    """The attack's name in the table: all transfer attacks share one, whatever they transfer from."""
    return "transfer" if row.kind == "transfer" else row.attack


def _tests(
    by_protocol: Mapping[str, Mapping[str, Evaluation]], tested: Sequence[str], against: str | None
) -> Iterator[PairwiseTest]:
    pairs = []
    for evaluations in by_protocol.values():
        attacks: list[str | None] = list(tested)
        # A worst case over several threats means nothing, so it is not tested.
        if all(len({row.threat for row in evaluation.rows}) == 1 for evaluation in evaluations.values()):
            attacks.insert(0, None)
        pairs += [
            (_tested_name(evaluations[one], attack), attack, evaluations[one], evaluations[other])
            for attack in attacks
            for one, other in _pairs(tuple(evaluations), against)
            if attack is None or (_has(evaluations[one], attack) and _has(evaluations[other], attack))
        ]
    outcomes = [compare(first, second, attack) for _, attack, first, second in pairs]
    corrected = holm([outcome.p_value for outcome in outcomes])
    for (name, attack, first, second), outcome, p_value in zip(pairs, outcomes, corrected, strict=True):
        yield PairwiseTest(
            measure=name,
            first=first.model,
            second=second.model,
            paired=outcome,
            p_value=p_value,
            doubts=doubts(first, second, attack),
        )


def _tested_name(evaluation: Evaluation, attack: str | None) -> str:
    """What is tested as the table calls it: in a cascade, an attack's images are those right after all before it."""
    name = "worst case" if attack is None else f"after {attack}" if evaluation.cascade else attack
    return f"{name} ({evaluation.protocol})"


def _pairs(models: Sequence[str], against: str | None) -> Iterator[tuple[str, str]]:
    """Every pair of models, or every other model with one of them, if it is among them."""
    if against is None:
        return combinations(models, 2)
    return ((model, against) for model in models if model != against and against in models)


def _check_names(evaluations: Sequence[Evaluation]) -> None:
    """Raises ConfigError if two models have one name."""
    hashes: dict[str, str] = {}
    for evaluation in evaluations:
        first_hash, own_hash = hashes.setdefault(evaluation.model, evaluation.model_sha256), evaluation.model_sha256
        if first_hash != own_hash:
            raise ConfigError(
                f"two different models are called {evaluation.model} (SHA-256 {first_hash[:8] or 'unknown'} and "
                f"{own_hash[:8] or 'unknown'}); give them names of their own, as "
                "with `hosnn train --set name=...`, and evaluate again"
            )


def _check_extent(evaluations: Sequence[Evaluation]) -> None:
    """Raises ConfigError if a protocol was run in full on one model and without its checks on another."""
    whole = {evaluation.protocol: evaluation.model for evaluation in evaluations if not evaluation.attacks_only}
    for evaluation in evaluations:
        base = evaluation.protocol.removesuffix(ATTACKS_ONLY)
        if evaluation.attacks_only and base in whole:
            raise ConfigError(
                f"{evaluation.model} was evaluated under {evaluation.protocol!r}, {whole[base]} under the whole "
                f"protocol {base!r}, with its checks; evaluate all models with --attacks-only, or all without"
            )


def _has(evaluation: Evaluation, attack: str) -> bool:
    return any(row.attack == attack for row in evaluation.rows)


def _check_attacks(tested: Sequence[str], evaluations: Sequence[Evaluation]) -> None:
    """Raises ConfigError for an attack that no evaluation has, or only one, if there are more."""
    attacks = dict.fromkeys(row.attack for evaluation in evaluations for row in evaluation.rows)
    for name in tested:
        if name not in attacks:
            raise ConfigError(
                f"no evaluation has an attack {name!r} to test; did you mean {nearest(name, attacks)!r}? There are "
                f"{', '.join(attacks) or 'none'}"
            )
        having = {evaluation.model for evaluation in evaluations if _has(evaluation, name)}
        if len(having) == 1 and len(evaluations) > 1:
            raise ConfigError(
                f"only {next(iter(having))} was attacked by {name!r}, so there is nothing to compare it with; leave it "
                "out, or evaluate the others under the same protocol"
            )


def _verdicts(by_protocol: Mapping[str, Mapping[str, Evaluation]], models: Sequence[str]) -> dict[str, dict[str, str]]:
    return {
        model: {
            protocol: evaluations[model].verdict
            for protocol, evaluations in by_protocol.items()
            if model in evaluations
        }
        for model in models
    }
