from dataclasses import replace

import pytest

from hosnn.report.evaluation_tables import attack_rows, class_rows, facts, other_panels, ranking, sorted_checks
from hosnn.report.phrases import duration
from hosnn.results.attack_matrix import OWN, attack_matrix
from hosnn.results.evaluation import AttackResult, Network, Panel
from tests.evaluation.synthetic import ESTIMATORS, METHODS, evaluation, rich


@pytest.mark.parametrize("cascade", [True, False])
def test_what_the_attacks_took_and_what_was_wrong_before_add_up_to_what_is_lost(cascade: bool) -> None:
    result = rich()
    if not cascade:
        plain = evaluation("smoke", 50, 45, {"a": 44, "b": 30, "c": 40})
        result = replace(plain, rows=(*plain.rows, replace(plain.rows[0], attack="d", predictions=plain.labels)))
    none, *attacks, worst = attack_rows(result)
    broken = [line.broken for line in (none, *attacks)]
    assert sum(each or 0 for each in broken) == result.samples - sum(result.robust)
    assert all(each is not None and each >= 0 for each in broken)
    assert worst.broken is None and worst.share == result.worst_case <= min(line.share for line in (none, *attacks))
    assert len(attacks) == len(result.rows)


def test_an_attack_that_finds_nothing_new_takes_nothing() -> None:
    lines = {line.name: line for line in attack_rows(evaluation("smoke", 50, 45, {"a": 30, "b": 40}))}
    assert (lines["a"].broken, lines["b"].broken) == (15, 0)
    assert lines["b"].share == 0.8


def test_a_threat_is_told_only_where_it_is_another() -> None:
    result = evaluation("smoke", 10, 9, {"a": 8, "b": 7})
    rows = (result.rows[0], replace(result.rows[1], threat="linf:16/255"))
    assert [line.threat for line in attack_rows(replace(result, rows=rows))] == ["", "", "linf:16/255", ""]


def test_the_matrix_holds_every_pair_and_the_worst_per_image() -> None:
    found = attack_matrix(rich())
    assert found is not None
    assert (found.methods, found.estimators, found.samples) == (METHODS, ESTIMATORS, 100)
    assert found.cells[3][2] is None  # the one pair that was not run
    known = [cell for line in found.cells for cell in line if cell is not None]
    assert found.cells[0] == (0.5, 0.66, 0.75)  # every 2nd, 3rd, 4th image lost
    assert found.by_estimator[0] == pytest.approx(0.33)  # 1 - (1/2 + 1/3 - 1/6), and every 4th lies among every 2nd
    for line, worst in zip(found.cells, found.by_estimator, strict=True):
        assert worst <= min(cell for cell in line if cell is not None)
    assert found.all <= min(*found.by_estimator, *found.by_method) and found.strongest == min(known)
    assert found.heat(min(known)) == 1 and found.heat(max(known)) == 0


def test_small_differences_in_the_matrix_are_not_blown_up() -> None:
    result = evaluation("smoke", 100, 90, {})
    rows = tuple(
        AttackResult(
            attack=name,
            threat=result.threat,
            eps=8 / 255,
            predictions=result.labels[:lost] + (-1,) * (100 - lost),
            seconds=1.0,
            estimator=name,
        )
        for name, lost in (("a", 60), ("b", 61))
    )
    found = attack_matrix(replace(result, panels=(Panel("matrix", rows),)))
    assert found is not None
    assert found.heat(0.60) == pytest.approx(0.2)
    assert found.cells == ((0.60, None), (None, 0.61)) and found.methods == ("a", "b")


def test_an_attack_without_an_estimator_has_its_own_line() -> None:
    result = evaluation("smoke", 100, 90, {})
    rows = (
        AttackResult(
            attack="Square",
            threat=result.threat,
            eps=8 / 255,
            predictions=result.labels,
            seconds=1.0,
            kind="queries",
            method="Square",
        ),
    )
    found = attack_matrix(replace(result, panels=(Panel("matrix", rows),)))
    assert found is not None and found.estimators == (OWN,) and found.by_method == (1.0,)


def test_no_panel_no_matrix() -> None:
    assert attack_matrix(evaluation("smoke", 10, 9, {"FGSM": 3})) is None


def test_the_search_is_sorted_by_strength() -> None:
    shares = [line.share for line in ranking(rich())]
    assert shares == sorted(shares) and len(shares) == len(ESTIMATORS)


def test_checks_come_with_what_failed_first() -> None:
    assert [check.severity for check in sorted_checks(rich())] == ["fail", "warn", "pass", "pass", "pass"]


def test_classes_count_their_images_and_their_losses() -> None:
    result = rich()
    lines = class_rows(result, ("T-shirt",))
    assert sum(line.samples for line in lines) == result.samples
    assert sum(line.worst * line.samples for line in lines) == pytest.approx(sum(result.robust))
    assert sum(line.clean * line.samples for line in lines) == pytest.approx(result.clean_accuracy * result.samples)
    assert {line.name for line in lines} == {"T-shirt", *(f"class {label}" for label in range(1, 10))}
    assert [line.worst for line in lines] == sorted((line.worst for line in lines), reverse=True)


def test_facts_tell_where_the_numbers_come_from() -> None:
    known = dict(facts(rich()))
    assert known["Settings SHA-256"] == "0" * 64 and known["Attack seed"] == "0" and "200 images" in known["Data"]
    assert known["Network"] == "spiking layers of this package, 3 layers, 2 of them with an adapting threshold"
    assert "440,000 images forward, 420,000 backward" in known["Passes"] and "1,234,567" in known["Parameters"]
    blind = dict(
        facts(replace(rich(), network=Network(spiking="foreign", gradient=False, random=True), model_sha256=""))
    )
    assert blind["Network"] == "spikes that do not come from this package, no gradient, random"
    unsure = replace(rich(), network=Network(evidence="values pass through round", copies="equal"))
    assert dict(facts(unsure))["Network"] == (
        "not known whether it spikes (values pass through round), differentiated by its own gradient only"
    )
    assert "Parameters" not in blind and "function" in blind["Model SHA-256"]


def test_only_panels_without_a_picture_are_left_for_tables() -> None:
    ((title, lines),) = other_panels(rich())
    assert title == "Controls" and (lines[0].name, lines[0].share) == ("noise", 0.88)
    own = replace(rich(), panels=(Panel("my own", rich().panel("controls")), Panel("empty", ())))
    assert [title for title, _ in other_panels(own)] == ["my own"]


def test_durations_read_well() -> None:
    assert [duration(each) for each in (0.0, 3.54, 45, 600, 7200)] == ["0 s", "3.5 s", "45 s", "10 min", "2.0 h"]
