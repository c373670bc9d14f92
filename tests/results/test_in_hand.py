"""A result as a user meets it: printed, in a notebook, as records, in a file."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hosnn.errors import ConfigError
from hosnn.results.check import Check, tally
from hosnn.results.evaluation import Evaluation
from hosnn.results.records import MOST
from tests.evaluation.synthetic import CHECKS, evaluation, rich

MANY = evaluation("full", 1000, 900, {f"attack {at}": 890 - at * (at % 3 == 0) for at in range(60)})
RESULTS = [
    pytest.param(result, id=name)
    for name, result in {
        "cascade": rich(),
        "each attack on every image": evaluation("smoke", 20, 18, {"FGSM": 3, "PGD": 5}),
        "ties lost": replace(evaluation("smoke", 20, 18, {"FGSM": 3}), clean_tied=(1,), rows=rich().rows[:0]),
        "many attacks": MANY,
    }.items()
]


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_is_printed_in_a_few_lines(result: Evaluation) -> None:
    printed = str(result)
    assert len(printed.splitlines()) <= MOST + 6
    assert max(map(len, printed.splitlines())) <= 120
    title, headings, clean, *_, worst, checks = printed.splitlines()
    assert title == result.title and result.model in title and result.protocol in title and result.threat in title
    assert f"{100 * result.clean_accuracy:.1f}" in clean and f"{100 * result.worst_case:.1f}" in worst
    assert {len(line.rstrip()) for line in (headings, worst)} == {len(headings)}  # aligned to the right
    assert checks == tally(result.checks)


@pytest.mark.parametrize("result", RESULTS)
def test_the_value_itself_is_one_short_line(result: Evaluation) -> None:
    for shown in (result, *result.rows[:1], [result]):
        assert len(repr(shown)) < 400 and "\n" not in repr(shown)
    assert f"worst case {100 * result.worst_case:.1f} %" in repr(result)


def test_of_many_attacks_those_are_shown_that_broke_most_and_the_others_are_counted() -> None:
    lines = str(MANY).splitlines()
    shown = [line for line in lines if line.startswith("attack ") and "accuracy" not in line]
    assert len(shown) == MOST
    broken = {record["attack"]: record["broken"] for record in MANY.to_records()[1:-1]}
    most = sorted(broken, key=lambda attack: -broken[attack])[:MOST]
    assert {line.split("  ")[0] for line in shown} == set(most)
    others = next(line for line in lines if line.startswith("48 more attacks"))
    hidden = sum(count for attack, count in broken.items() if attack not in most)
    assert hidden > 0 and others.split()[3:] == [str(hidden), "72"]  # 48 times 1.5 seconds


def test_a_notebook_shows_the_same_table_and_takes_names_for_text() -> None:
    result = replace(rich(), model="<script>x</script>")
    html = result._repr_html_()
    assert html.count("<tr>") == len(str(result).splitlines()) - 2
    assert "<script>" not in html and "&lt;script&gt;" in html and "this number must not be believed" in html


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ((), "checks: none were run"),
        (CHECKS[:2], "checks: 2 pass"),
        (CHECKS, "checks: 3 pass, 1 warn (ties), 1 fail (large eps): this number must not be believed"),
    ],
    ids=["none", "passed", "failed"],
)
def test_the_last_line_names_the_checks_that_did_not_pass(checks: tuple[Check, ...], said: str) -> None:
    assert str(replace(rich(), checks=checks)).endswith(f"\n{said}")


@pytest.mark.parametrize("result", RESULTS)
def test_records_are_the_numbers_of_the_result(result: Evaluation) -> None:
    clean, *attacks, worst = result.to_records()
    assert len({tuple(record) for record in (clean, *attacks, worst)}) == 1  # the same columns
    assert (clean["attack"], clean["accuracy"]) == ("clean", result.clean_accuracy)
    assert (worst["attack"], worst["accuracy"]) == ("worst case", result.worst_case)
    assert (worst["low"], worst["high"]) == result.worst_interval
    for row, record in zip(result.rows, attacks, strict=True):
        assert record["accuracy"] == result.accuracy(row.attack)
        assert (record["low"], record["high"]) == result.interval(row.attack)
        for field in ("attack", "kind", "estimator", "steps", "threat", "eps", "forward", "backward", "seconds"):
            assert record[field] == getattr(row, field)
    for record in (clean, *attacks, worst):
        assert (record["model"], record["protocol"], record["seed"]) == (result.model, result.protocol, result.seed)
        assert record["images"] == result.samples
    assert sum(record["broken"] for record in (clean, *attacks, worst)) == result.samples - sum(result.robust)


@pytest.mark.parametrize("result", RESULTS)
def test_accuracies_are_means_over_the_records_of_images(result: Evaluation) -> None:
    images = result.to_records(per_image=True)
    records = result.to_records()
    assert len(images) == len(records) * result.samples
    for at, record in enumerate(records):
        own = images[at * result.samples : (at + 1) * result.samples]
        assert {image["attack"] for image in own} == {record["attack"]}
        assert tuple(image["index"] for image in own) == result.index
        assert tuple(image["label"] for image in own) == result.labels
        assert math.isclose(sum(image["correct"] for image in own) / result.samples, record["accuracy"])
    assert tuple(image["prediction"] for image in images[: result.samples]) == result.clean


def test_records_are_what_pandas_takes() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rich().to_records())
    assert frame.set_index("attack").accuracy["worst case"] == rich().worst_case
    images = pandas.DataFrame(rich().to_records(per_image=True))
    assert (images.groupby("attack").correct.mean()["APGD-CE"]) == rich().accuracy("APGD-CE")


def test_files_can_be_named_by_a_text(tmp_path: Path) -> None:
    name = str(tmp_path / "made" / "result.json")
    rich().save(name)
    assert Evaluation.load(name).to_records() == rich().to_records()
    with pytest.raises(ConfigError, match="cannot read the evaluation"):
        Evaluation.load(str(tmp_path / "missing.json"))
