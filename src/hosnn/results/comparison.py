"""Several models under the same protocols: one table, and which differences chance does not explain."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from hosnn.errors import ConfigError, nearest
from hosnn.results.attack_matrix import matrix
from hosnn.results.evaluation import AttackResult, Evaluation
from hosnn.results.paired_test import Paired, compare, refuse_unpaired, sentence
from hosnn.results.statistics import holm
from hosnn.results.text import NOT_RUN

FORMAT = "hosnn-side-by-side-1"


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    name     what was measured, and under which protocol
    samples  on how many images
    kept     by model, how many of them it classifies correctly; no entry where it was not measured
    """

    name: str
    protocol: str
    samples: int
    kept: dict[str, int]


@dataclass(frozen=True)
class Test:
    """Two models compared sample by sample; p_value is corrected for all tests of the table (Holm).

    doubts  why not to believe the numbers compared
    """

    measure: str
    first: str
    second: str
    paired: Paired
    p_value: float
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = sentence(self.paired, self.first, self.second, self.p_value).removesuffix(".")
        return f"{self.measure}: {'; but '.join((found, *self.doubts))}."


@dataclass(frozen=True)
class Comparison:
    """Everything measured of each model, and every pair of them tested on the worst case and on shared attacks."""

    models: tuple[str, ...]
    measures: tuple[Measure, ...]
    tests: tuple[Test, ...]
    checks: dict[str, dict[str, str]]  # by model, then by protocol: the verdict; "none" without checks

    def verdicts(self) -> dict[str, list[str]]:
        """A line of the table for each protocol: what the checks of each model's evaluation came to."""
        protocols = dict.fromkeys(name for verdicts in self.checks.values() for name in verdicts)
        return {f"checks ({at})": [self.checks[model].get(at, NOT_RUN) for model in self.models] for at in protocols}

    def to_json(self) -> dict[str, Any]:
        tests = [asdict(test) | {"paired": test.paired.to_json(), "sentence": str(test)} for test in self.tests]
        return {"format": FORMAT} | asdict(self) | {"tests": tests}


def compare_models(
    evaluations: Sequence[Evaluation], tested: Sequence[str] = (), against: str | None = None
) -> Comparison:
    """Evaluations of two models or more, each under one protocol or more.

    tested   names of attacks to compare pairwise, besides each protocol's worst case
    against  test every model against this one only; None: every pair
    Raises ConfigError for fewer than two models, a model evaluated twice under one protocol, one name for two models,
    evaluations of one protocol under different threats or on different images, and for a model `against` or an attack
    `tested` that is in no evaluation.
    """
    models = tuple(dict.fromkeys(each.model for each in evaluations))
    if len(models) < 2:
        raise ConfigError(
            f"compare_models got evaluations of {', '.join(models) or 'nothing'}; expected two models or more"
        )
    if against is not None and against not in models:
        raise ConfigError(f"there is no evaluation of {against!r} to test against; there are {', '.join(models)}")
    by: dict[str, dict[str, Evaluation]] = {}
    for each in evaluations:
        if each.model in by.setdefault(each.protocol, {}):
            raise ConfigError(f"{each.model} comes twice under protocol {each.protocol}; give each evaluation once")
        by[each.protocol][each.model] = each
    _refuse_two_of_a_name(evaluations)
    for found in by.values():
        first, *others = found.values()
        for other in others:
            refuse_unpaired(first, other)
    _refuse_unknown(tested, evaluations)
    measures = tuple(measure for found in by.values() for measure in _measures(found))
    return Comparison(models, measures, tuple(_tests(by, tested, against)), _verdicts(by))


def _measures(found: dict[str, Evaluation]) -> Iterator[Measure]:
    """What the evaluations of one protocol tell."""
    protocol, first = next((each.protocol, each) for each in found.values())

    def measure(name: str, samples: int, kept: dict[str, int]) -> Measure:
        return Measure(f"{name} ({protocol})", protocol, samples, kept)

    yield measure(
        "clean", first.samples, {model: round(each.clean_accuracy * each.samples) for model, each in found.items()}
    )
    for name in dict.fromkeys(_place(row) for each in found.values() for row in each.rows):
        kept = {
            model: sum(each.correct_after(row))
            for model, each in found.items()
            for row in each.rows
            if _place(row) == name
        }
        yield measure(f"after {name}" if first.cascade else name, first.samples, kept)
    if len({row.threat for row in first.rows}) == 1:  # over several threats it is no threat's worst case
        yield measure("worst case", first.samples, {model: sum(each.robust) for model, each in found.items()})
    tables = {model: table for model, each in found.items() if (table := matrix(each))}
    for estimator in dict.fromkeys(name for table in tables.values() for name in table.estimators):
        kept = {
            model: round(table.by_estimator[table.estimators.index(estimator)] * table.samples)
            for model, table in tables.items()
            if estimator in table.estimators
        }
        yield measure(f"best through {estimator}", next(iter(tables.values())).samples, kept)
    alone = {
        model: [row for row in each.panel("controls") if row.kind in ("queries", "transfer")]
        for model, each in found.items()
    }
    for name in dict.fromkeys(_place(row) for rows in alone.values() for row in rows):
        kept = {m: sum(found[m].correct_after(row)) for m, rows in alone.items() for row in rows if _place(row) == name}
        count = max(len(row.predictions) for rows in alone.values() for row in rows)
        yield measure(f"{name} alone", count, kept)


def _place(row: AttackResult) -> str:
    """The row's line in the table: transfer has one, whatever the twin."""
    return "transfer" if row.kind == "transfer" else row.attack


def _tests(by: dict[str, dict[str, Evaluation]], tested: Sequence[str], against: str | None) -> Iterator[Test]:
    pairs = []
    for protocol, found in by.items():
        attacks: list[str | None] = [
            name for name in tested if all(any(row.attack == name for row in each.rows) for each in found.values())
        ]
        # A worst case over several threats is no threat's worst case, so nothing is tested on it.
        if all(len({row.threat for row in each.rows}) == 1 for each in found.values()):
            attacks.insert(0, None)
        for attack in attacks:
            name = f"{attack or 'worst case'} ({protocol})"
            pairs += [
                (name, one, other, compare(found[one], found[other], attack), _doubts(found[one], found[other], attack))
                for one, other in combinations(found, 2)
                if against in (None, one, other)
            ]
    corrected = holm([paired.p_value for *_, paired, _ in pairs])
    for (name, one, other, paired, doubts), p_value in zip(pairs, corrected, strict=True):
        yield Test(name, one, other, paired, p_value, doubts)


def _doubts(first: Evaluation, second: Evaluation, attack: str | None) -> tuple[str, ...]:
    """Why the numbers of two evaluations are not what they seem."""
    found = []
    blind = [each.model for each in (first, second) if not each.network.gradient]
    if blind and attack is None:
        found.append(f"{' and '.join(blind)} gave no gradient and met fewer attacks")
    failed = [each.model for each in (first, second) if each.verdict == "fail"]
    if failed:
        many = "s" if len(failed) > 1 else ""
        found.append(f"the evaluation{many} of {' and '.join(failed)} failed {'their' if many else 'its'} checks")
    return tuple(found)


def _refuse_two_of_a_name(evaluations: Sequence[Evaluation]) -> None:
    known: dict[str, str] = {}
    for each in evaluations:
        if known.setdefault(each.model, each.model_sha256) != each.model_sha256:
            raise ConfigError(
                f"two different models are called {each.model} (SHA-256 {known[each.model][:8] or 'unknown'} and "
                f"{each.model_sha256[:8] or 'unknown'}); give them names of their own and evaluate again"
            )


def _refuse_unknown(tested: Sequence[str], evaluations: Sequence[Evaluation]) -> None:
    known = dict.fromkeys(row.attack for each in evaluations for row in each.rows)
    for name in tested:
        if name not in known:
            raise ConfigError(
                f"no evaluation has an attack {name!r} to test; did you mean {nearest(name, known)!r}? There are "
                f"{', '.join(known) or 'none'}"
            )


def _verdicts(by: dict[str, dict[str, Evaluation]]) -> dict[str, dict[str, str]]:
    models = dict.fromkeys(model for found in by.values() for model in found)
    return {
        model: {
            name: found[model].verdict if found[model].checks else "none"
            for name, found in by.items()
            if model in found
        }
        for model in models
    }
