"""Several models beside each other: every number is one of the evaluations', every claim a paired test."""

from dataclasses import replace

import pytest

from hosnn.errors import ConfigError
from hosnn.evaluation.paired import compare
from hosnn.evaluation.result import Evaluation, Panel, Row
from hosnn.evaluation.side_by_side import SideBySide, markdown_side_by_side, side_by_side
from hosnn.evaluation.statistics import holm
from tests.evaluation.synthetic import evaluation, guesses


def of(model: str, protocol: str, **kept: int) -> Evaluation:
    made = evaluation(protocol, 100, 90, kept)
    return replace(made, model=model, panels=(), cascade=protocol == "standard")


THREE = [
    of("a", "standard", first=80, last=70),
    of("b", "standard", first=60, last=40),
    of("c", "standard", first=80, last=69),
]


def cell(found: SideBySide, name: str) -> dict[str, int]:
    return next(measure.kept for measure in found.measures if measure.name == name)


def test_every_measure_is_that_of_its_evaluation() -> None:
    found = side_by_side(THREE)
    assert found.models == ("a", "b", "c")
    assert cell(found, "clean (standard)") == {"a": 90, "b": 90, "c": 90}
    assert cell(found, "after last (standard)") == {"a": 70, "b": 40, "c": 69}
    assert cell(found, "worst case (standard)") == {"a": 70, "b": 40, "c": 69}


def test_every_pair_is_tested_on_the_worst_case_and_corrected_for_the_number_of_tests() -> None:
    found = side_by_side(THREE)
    assert [(test.first, test.second) for test in found.tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [compare(THREE[one], THREE[other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    assert [test.paired for test in found.tests] == alone
    assert [test.p_value for test in found.tests] == holm([each.p_value for each in alone])
    assert "a keeps 30.0 points more than b" in str(found.tests[0])
    assert "No difference between a and c can be told" in str(found.tests[1])


def test_a_model_can_be_tested_against_one_alone() -> None:
    found = side_by_side(THREE, against="b")
    assert [(test.first, test.second) for test in found.tests] == [("a", "b"), ("b", "c")]
    with pytest.raises(ConfigError, match="no evaluation of 'd'"):
        side_by_side(THREE, against="d")


def test_attacks_named_are_tested_where_all_models_have_them() -> None:
    found = side_by_side(THREE, tested=("first", "other"))
    assert [test.measure for test in found.tests[3:]] == ["first (standard)"] * 3


def test_a_worst_case_over_several_threats_is_not_tested() -> None:
    mixed = [replace(each, rows=(each.rows[0], replace(each.rows[1], threat="linf:8/255/step"))) for each in THREE]
    assert side_by_side(mixed).tests == ()


def test_several_protocols_stand_in_one_table_and_gaps_show() -> None:
    found = side_by_side([*THREE, of("a", "choices", PGD=50)])
    assert cell(found, "PGD (choices)") == {"a": 50}
    text = markdown_side_by_side(found)
    line = next(line for line in text.splitlines() if line.startswith("| PGD (choices)"))
    assert line.count("not run") == 2 and "50.0 [" in line


def test_transfer_stands_on_one_line_whatever_the_twin_and_attacks_alone_are_told_apart() -> None:
    def with_transfer(each: Evaluation, twin: str) -> Evaluation:
        row = Row(f"transfer from {twin}", each.threat, 8 / 255, guesses(each.labels, 66), 1.0, "transfer")
        alone = replace(row, predictions=guesses(each.labels[:50], 40))
        return replace(each, rows=(*each.rows, row), panels=(Panel("controls", (alone,)),))

    found = side_by_side([with_transfer(THREE[0], "x"), with_transfer(THREE[1], "y")])
    assert cell(found, "after transfer (standard)") == {"a": 66, "b": 66}
    assert cell(found, "transfer alone (standard)") == {"a": 40, "b": 40}
    assert next(m.samples for m in found.measures if m.name == "transfer alone (standard)") == 50


def test_one_model_alone_or_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="two models or more"):
        side_by_side(THREE[:1])
    with pytest.raises(ConfigError, match="a comes twice"):
        side_by_side([*THREE, THREE[0]])


def test_models_seen_on_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be paired"):
        side_by_side([THREE[0], replace(THREE[1], index=tuple(range(1, 101)))])
