"""Two evaluations paired by sample: the table of agreement, refusals, and what is said of it."""

from dataclasses import replace

import pytest

from hosnn.errors import ConfigError
from hosnn.results.evaluation import Evaluation
from hosnn.results.paired_test import CLEAN, PairedTest, compare, outcome_sentence
from hosnn.results.statistics import mcnemar, paired_interval
from tests.evaluation.synthetic import evaluation

FIRST = evaluation("smoke", 100, 90, {"FGSM": 60, "PGD": 50})
SECOND = evaluation("smoke", 100, 88, {"FGSM": 75, "PGD": 30})


def test_of_counts_each_sample_once() -> None:
    first = [True] * 5 + [True] * 7 + [False] * 3 + [False] * 2
    second = [True] * 5 + [False] * 7 + [True] * 3 + [False] * 2
    found = PairedTest.of(first, second)
    assert (found.samples, found.both, found.first_only, found.second_only, found.neither) == (17, 5, 7, 3, 2)
    assert found.difference == pytest.approx(4 / 17)
    assert found.interval == paired_interval(7, 3, 17) and found.p_value == mcnemar(7, 3)
    assert found.bootstrap.low <= found.difference <= found.bootstrap.high


def test_the_other_way_round_is_the_same_comparison() -> None:
    forward, back = compare(FIRST, SECOND), compare(SECOND, FIRST)
    assert forward.difference == -back.difference and forward.p_value == back.p_value
    assert forward.interval == pytest.approx(back.swapped().interval)
    assert forward.bootstrap == pytest.approx(back.swapped().bootstrap, abs=0.01)
    assert forward.swapped().swapped() == forward


@pytest.mark.parametrize(
    ("attack", "difference"),
    [(None, 20), (CLEAN, 2), ("FGSM", -15), ("PGD", 20)],
    ids=["worst", "clean", "FGSM", "PGD"],
)
def test_compare_looks_at_what_was_asked_for(attack: str | None, difference: int) -> None:
    found = compare(FIRST, SECOND, attack)
    assert found.difference == pytest.approx(difference / 100) and found.samples == 100


def test_the_worst_case_is_paired_sample_by_sample() -> None:
    """Equal accuracies on different samples are a tie, not agreement."""
    right = FIRST.labels
    wrong = tuple((label + 1) % 10 for label in right)
    halves = (right[:50] + wrong[50:], wrong[:50] + right[50:])
    one, other = (replace(FIRST, clean=right, rows=(replace(FIRST.rows[0], predictions=half),)) for half in halves)
    found = compare(one, other)
    assert (found.first_only, found.second_only, found.both, found.p_value) == (50, 50, 0, 1.0)


def test_a_model_against_itself_differs_by_nothing() -> None:
    found = compare(FIRST, FIRST)
    assert found.difference == 0 and found.p_value == 1 and found.interval.low < 0 < found.interval.high


@pytest.mark.parametrize(
    ("other", "attack", "said"),
    [
        (replace(SECOND, index=tuple(range(1, 101))), None, "different samples"),
        (replace(SECOND, labels=SECOND.labels[::-1]), CLEAN, "different labels"),
        (replace(SECOND, dataset_sha256="ef" * 32), CLEAN, "different data sets"),
        (evaluation("smoke", 50, 40, {"FGSM": 20, "PGD": 10}), None, "different samples"),
        (replace(SECOND, threat="linf:4/255"), None, r"attacked differently .*linf:8/255.*linf:4/255"),
        (replace(SECOND, protocol="standard"), None, "attacked differently .*smoke.*standard"),
        (replace(SECOND, rows=tuple(replace(row, eps=4 / 255) for row in SECOND.rows)), "PGD", "attacked differently"),
        (SECOND, "CW", "no attack 'CW'"),
    ],
    ids=["index", "labels", "data", "number", "threat", "protocol", "eps", "row"],
)
def test_what_cannot_be_paired_is_refused(other: Evaluation, attack: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compare(FIRST, other, attack)


def test_another_threat_does_not_matter_to_clean_accuracy() -> None:
    assert compare(FIRST, replace(SECOND, threat="linf:4/255", settings="1" * 64), CLEAN).samples == 100


def test_attacks_that_fitted_themselves_to_the_model_are_paired() -> None:
    """Within one protocol a search finds other surrogates and each model has other twins, so the hashes differ."""
    assert compare(FIRST, replace(SECOND, settings="1" * 64)) == compare(FIRST, SECOND)


def test_nothing_cannot_be_compared() -> None:
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ConfigError, match="same ones"):
            PairedTest.of(first, second)


def test_a_clear_difference_is_said_from_the_better_model() -> None:
    found = compare(FIRST, SECOND)
    said = outcome_sentence(found, "A", "B")
    assert said.startswith("A is 20.0 points more accurate than B (95 % interval ") and "p < 0.001, n = 100" in said
    assert outcome_sentence(found.swapped(), "B", "A") == said
    assert "only A is right on 20 samples, only B on 0" in said


def test_a_difference_that_chance_explains_is_called_none() -> None:
    said = outcome_sentence(compare(FIRST, SECOND, CLEAN), "A", "B")
    assert said.startswith("A and B do not differ significantly on 100 samples (A minus B: +2.0 points")
    assert "more accurate than" not in said and "p = 0.5" in said


def test_a_correction_for_many_comparisons_can_take_a_difference_back() -> None:
    found = compare(FIRST, SECOND, "FGSM")
    assert outcome_sentence(found, "A", "B").startswith("B is 15.0 points more accurate than A")
    assert outcome_sentence(found, "A", "B", p_value=0.3).startswith("A and B do not differ")
    assert "corrected, = 0.01" in outcome_sentence(found, "A", "B", p_value=0.01)


def test_to_json_holds_everything() -> None:
    content = compare(FIRST, SECOND).to_json()
    assert content["first_only"] == 20 and len(content["interval"]) == 2 and isinstance(content["interval"], list)
