"""Several models beside each other: every number is one of the evaluations', every claim a paired test."""

from dataclasses import replace

import pytest

from hosnn.errors import ConfigError
from hosnn.report.comparison_markdown import NOTHING_TESTED, against_markdown, comparison_markdown
from hosnn.results.check import Check, Severity
from hosnn.results.comparison import Comparison, compare_models
from hosnn.results.evaluation import Evaluation, Network, Panel
from hosnn.results.paired_test import compare
from hosnn.results.statistics import holm
from tests.evaluation.synthetic import attack_result, evaluation, guesses, rich


def of(model: str, protocol: str, **kept: int) -> Evaluation:
    made = evaluation(protocol, 100, 90, kept)
    return replace(made, model=model, panels=(), cascade=protocol == "standard")


THREE = [
    of("a", "standard", first=80, last=70),
    of("b", "standard", first=60, last=40),
    of("c", "standard", first=80, last=69),
]


def cell(found: Comparison, name: str) -> dict[str, int]:
    return next(measure.correct for measure in found.measures if measure.name == name)


def test_every_measure_is_that_of_its_evaluation() -> None:
    found = compare_models(THREE)
    assert found.models == ("a", "b", "c")
    assert cell(found, "clean (standard)") == {"a": 90, "b": 90, "c": 90}
    assert cell(found, "after last (standard)") == {"a": 70, "b": 40, "c": 69}
    assert cell(found, "worst case (standard)") == {"a": 70, "b": 40, "c": 69}


def test_every_pair_is_tested_on_the_worst_case_and_corrected_for_the_number_of_tests() -> None:
    found = compare_models(THREE)
    assert [(test.first, test.second) for test in found.tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [compare(THREE[one], THREE[other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    assert [test.paired for test in found.tests] == alone
    assert [test.p_value for test in found.tests] == holm([each.p_value for each in alone])
    assert "a is 30.0 points more accurate than b" in str(found.tests[0])
    assert "a and c do not differ significantly" in str(found.tests[1])


def test_a_model_can_be_tested_against_one_alone() -> None:
    found = compare_models(THREE, against="b")
    assert [(test.first, test.second) for test in found.tests] == [("a", "b"), ("c", "b")]
    with pytest.raises(ConfigError, match="no evaluation of 'd'"):
        compare_models(THREE, against="d")


def test_a_line_of_the_table_is_a_model_minus_the_one_it_is_tested_against() -> None:
    text = against_markdown(compare_models(THREE, against="b"), "b")
    assert "b: worst case (standard) 40.0 [30.9, 49.8]." in text
    assert "| network | measure | images | accuracy | minus b | only it right | only the other right | p |" in text
    first, last = text.splitlines()[-2:]
    assert first.startswith("| a | worst case (standard) | 100 | 70.0 [60.4, 78.1] | +30.0 [") and "< 0.001 |" in first
    assert last.startswith("| c | worst case (standard) | 100 | 69.0 [59.4, 77.2] | +29.0 [")


def test_models_without_a_common_protocol_are_shown_and_said_not_to_be_tested() -> None:
    text = comparison_markdown(compare_models([THREE[0], of("b", "quick", first=60)]))
    assert NOTHING_TESTED in text and "after last (standard)" in text


def test_attacks_named_are_tested_where_both_models_have_them() -> None:
    more = [replace(each, rows=(*each.rows, replace(each.rows[0], attack="other"))) for each in THREE[:2]]
    found = compare_models([*more, THREE[2]], tested=("first", "other"))
    assert [test.measure for test in found.tests[3:]] == ["after first (standard)"] * 3 + ["after other (standard)"]
    assert (found.tests[-1].first, found.tests[-1].second) == ("a", "b")
    with pytest.raises(ConfigError, match="only a was attacked by 'other'"):
        compare_models([more[0], *THREE[1:]], tested=("other",))
    with pytest.raises(ConfigError, match=r"no evaluation has an attack 'fist'.*did you mean 'first'"):
        compare_models(THREE, tested=("fist",))


def test_a_worst_case_over_several_threats_is_neither_shown_nor_tested() -> None:
    mixed = [replace(each, rows=(each.rows[0], replace(each.rows[1], threat="linf:8/255/step"))) for each in THREE]
    assert compare_models(mixed).tests == ()
    assert not any(measure.name.startswith("worst case") for measure in compare_models(mixed).measures)
    assert compare_models([THREE[0], mixed[1]]).tests == ()


def test_rows_of_one_threat_each_are_tested_though_the_models_were_left_other_attacks() -> None:
    """What several threats may not be in is one evaluation; without any row there is no worst case either."""
    assert len(compare_models([THREE[0], replace(THREE[1], rows=THREE[1].rows[:1])]).tests) == 1
    assert compare_models([THREE[0], replace(THREE[1], rows=())]).tests == ()


def test_several_protocols_stand_in_one_table_and_gaps_show() -> None:
    found = compare_models([*THREE, of("a", "choices", PGD=50)])
    assert cell(found, "PGD (choices)") == {"a": 50}
    text = comparison_markdown(found)
    line = next(line for line in text.splitlines() if line.startswith("| PGD (choices)"))
    assert line.count("not run") == 2 and "50.0 [" in line


def test_transfer_stands_on_one_line_whatever_the_twin_and_attacks_alone_are_told_apart() -> None:
    def with_transfer(each: Evaluation, twin: str) -> Evaluation:
        row = attack_result(f"transfer from {twin}", guesses(each.labels, 66), kind="transfer")
        alone = replace(row, predictions=guesses(each.labels[:50], 40))
        return replace(each, rows=(*each.rows, row), panels=(Panel("controls", (alone,)),))

    found = compare_models([with_transfer(THREE[0], "x"), with_transfer(THREE[1], "y")])
    assert cell(found, "after transfer (standard)") == {"a": 66, "b": 66}
    assert cell(found, "transfer alone (standard)") == {"a": 40, "b": 40}
    assert next(m.samples for m in found.measures if m.name == "transfer alone (standard)") == 50


def test_one_model_alone_or_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="two models or more"):
        compare_models(THREE[:1])
    with pytest.raises(ConfigError, match="a comes twice"):
        compare_models([*THREE, THREE[0]])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(THREE[2], index=tuple(range(1, 101))), "of a and c have different samples"),
        (replace(THREE[2], labels=THREE[2].labels[::-1]), "of a and c have different labels"),
        (replace(THREE[2], dataset_sha256="ef" * 32), "of a and c have different data sets"),
        (replace(THREE[2], threat="linf:4/255"), "of a and c were attacked differently"),
    ],
    ids=["index", "labels", "data", "threat"],
)
def test_models_seen_on_other_images_or_attacked_otherwise_are_refused_though_nothing_is_tested(
    other: Evaluation, said: str
) -> None:
    several = [
        replace(each, rows=(each.rows[0], replace(each.rows[1], threat="l2:1"))) for each in (THREE[0], THREE[1], other)
    ]
    assert compare_models(several[:2]).tests == ()
    with pytest.raises(ConfigError, match=said):
        compare_models(several)


def test_one_name_for_two_models_is_refused() -> None:
    with pytest.raises(ConfigError, match="two different models are called a"):
        compare_models([*THREE, replace(of("a", "choices", PGD=50), model_sha256="12" * 32)])
    with pytest.raises(ConfigError, match=r"two different models are called a .* as with `hosnn train --set name"):
        compare_models([THREE[0], replace(THREE[0], model_sha256="12" * 32)])


def test_an_attack_that_is_named_twice_is_tested_once() -> None:
    assert compare_models(THREE, ["last", "last"]).tests == compare_models(THREE, ["last"]).tests


def check(severity: Severity) -> Check:
    return Check("ties", severity, "1 %", 0.01, "Said at length.")


def test_verdicts_stand_in_the_table_and_a_failed_one_in_every_sentence_it_concerns() -> None:
    verdicts: tuple[Severity, ...] = ("pass", "fail", "warn")
    three = [replace(each, checks=(check(is_),)) for each, is_ in zip(THREE, verdicts, strict=True)]
    found = compare_models([*three, of("a", "choices", PGD=50)])
    assert found.verdicts() == {
        "checks (standard)": ["pass", "fail", "warn"],
        "checks (choices)": ["none", "not run", "not run"],
    }
    assert "| checks (standard) |  | pass | fail | warn |" in comparison_markdown(found)
    doubt = "; but the evaluation of b failed its checks."
    assert [str(test).endswith(doubt) for test in found.tests] == [True, False, True]
    assert "failed" not in str(found.tests[1]) and str(found.tests[1]).endswith("either may be the more accurate.")
    assert doubt in found.to_json()["tests"][0]["sentence"]
    both = compare_models([replace(each, checks=(check("fail"),)) for each in THREE[:2]])
    assert str(both.tests[0]).endswith("; but the evaluations of a and b failed their checks.")


def test_a_model_that_met_fewer_attacks_for_want_of_a_gradient_is_said_to_have() -> None:
    blind = replace(THREE[1], network=Network(gradient=False))
    found = compare_models([THREE[0], blind, THREE[2]], tested=("last",))
    said = "; but b gave no gradient and met fewer attacks."
    assert [str(test).endswith(said) for test in found.tests] == [True, False, True, False, False, False]
    other = replace(THREE[1], skipped=("search for estimators: no hosnn spiking layer with a gradient found",))
    assert not any(test.doubts for test in compare_models([THREE[0], other]).tests)


def test_transfer_from_two_models_counts_what_either_breaks() -> None:
    def with_both(each: Evaluation) -> Evaluation:
        keeps = [[at % 2 == 0 for at in range(50)], [at % 3 == 0 for at in range(50)]]
        rows = tuple(
            attack_result(
                f"transfer from {at}",
                tuple(y if right else (y + 1) % 10 for y, right in zip(each.labels, kept, strict=False)),
                kind="transfer",
            )
            for at, kept in enumerate(keeps)
        )
        return replace(each, panels=(Panel("controls", rows),))

    found = compare_models([with_both(THREE[0]), with_both(THREE[1])])
    assert cell(found, "transfer alone (standard)") == {"a": 9, "b": 9}


def test_evaluations_that_count_ties_differently_are_not_paired() -> None:
    with pytest.raises(ConfigError, match="count ties differently"):
        compare_models([replace(THREE[0], clean_tied=()), replace(THREE[1], clean_tied=None)])


def test_other_settings_of_a_protocol_are_a_doubt_unless_they_name_transfer_sources() -> None:
    other = replace(THREE[1], settings="1" * 64)
    (test,) = compare_models([THREE[0], other]).tests
    assert test.doubts == (
        "a and b were evaluated under different settings of standard, such as those of another version of hosnn",
    )
    transferred = replace(other, rows=(replace(other.rows[0], kind="transfer"), *other.rows[1:]))
    assert compare_models([THREE[0], transferred]).tests[0].doubts == ()


def test_attacks_through_a_foreign_networks_own_gradient_alone_are_a_doubt() -> None:
    ours, foreign = (
        Network(spiking=kind, layers=layers, copies="equal") for kind, layers in (("hosnn", 2), ("foreign", 0))
    )
    first, second = replace(THREE[0], network=ours), replace(THREE[1], network=foreign)
    (test,) = compare_models([first, second]).tests
    assert test.doubts == (
        "b was attacked through its own gradient alone, without the estimators that the other met, and may be less "
        "robust than it seems",
    )
    both = [replace(each, network=foreign) for each in THREE[:2]]
    assert compare_models(both).tests[0].doubts == ()
    ann = replace(second, network=replace(foreign, spiking="none"))
    assert compare_models([first, ann]).tests[0].doubts == ()


def test_panels_of_fewer_images_are_not_counted_as_if_they_were_of_more() -> None:
    small = rich()
    panels = tuple(
        Panel(panel.name, tuple(replace(row, predictions=row.predictions[:50]) for row in panel.rows))
        for panel in small.panels
    )
    found = compare_models([rich(), replace(small, model="smaller", panels=panels)])
    of_panels = [it for it in found.measures if it.name.startswith("worst case through")]
    assert of_panels and all(set(it.correct) == {rich().model} and it.samples == 100 for it in of_panels)


def test_attacks_of_a_cascade_are_tested_by_the_name_that_the_table_has() -> None:
    found = compare_models([rich(), replace(rich(), model="other")], ["Square"], against="other")
    assert {test.measure for test in found.tests} <= {measure.name for measure in found.measures}
    assert "after Square (standard)" in against_markdown(found, "other")


def test_other_numbers_of_steps_of_an_attack_are_a_doubt() -> None:
    changed = tuple(replace(row, steps=400) if row.attack == "Square" else row for row in rich().rows)
    found = compare_models([rich(), replace(rich(), model="other", rows=changed)], ["Square"])
    assert found.tests[-1].doubts[0] == f"{rich().model} met 100 steps of Square and other 400"
