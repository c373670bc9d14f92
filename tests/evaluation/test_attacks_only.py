"""Runs of a protocol's attacks without its panels and checks: the same worst case, under another name everywhere."""

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hosnn
from hosnn.cli.evaluate import evaluate as evaluate_verb
from hosnn.errors import ConfigError, SetAsideWarning
from hosnn.evaluation.evaluate import evaluate, evaluate_shard
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.runner import Shard
from hosnn.evaluation.store import file_stem
from hosnn.protocols.builtin import PROTOCOLS, protocol_by_name
from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.report.evaluation_summary import finding, limitations
from hosnn.results.check import SEVERITIES
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import DEFAULT_THREAT
from tests.evaluation.synthetic import evaluation, rich
from tests.evaluation.test_evaluate import FOUR, images, linear

WHOLE = replace(FOUR, name="standard", model_check_samples=8)
BARE = replace(rich(), protocol="standard, attacks only", attacks_only=True, checks=(), panels=())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_a_run_without_checks_with_a_name_files_and_a_hash_of_its_own(name: str) -> None:
    whole = protocol_by_name(name, DEFAULT_THREAT)
    bare = whole.without_checks()
    assert bare.name == f"{name}, attacks only"
    for field in ("attacks", "search", "cascade", "ties_lost", "samples", "block_size"):
        assert getattr(bare, field) == getattr(whole, field)
    assert not bare.panels and not bare.model_check_samples and not bare.binarization_samples
    assert bare.settings != whole.settings
    assert bare.settings != replace(bare, attacks_only=False).settings
    assert bare.without_checks() == bare
    assert (file_stem(bare.name), file_stem(whole.name)) == (f"{name}-attacks-only", name)


def test_the_worst_case_is_that_of_the_whole_protocol_to_the_bit(tmp_path: Path) -> None:
    whole = evaluate(linear(), images(), WHOLE)
    bare = evaluate(linear(), images(), WHOLE, attacks_only=True)
    assert (bare.clean, bare.robust) == (whole.clean, whole.robust)
    assert [row.predictions for row in bare.rows] == [row.predictions for row in whole.rows]
    assert whole.panels and whole.checks and not whole.attacks_only
    assert (bare.panels, bare.checks, bare.attacks_only) == ((), (), True)
    assert (bare.protocol, whole.protocol) == ("standard, attacks only", "standard")
    bare.save(tmp_path / "bare.json")
    assert Evaluation.load(tmp_path / "bare.json").attacks_only
    assert bare.to_json()["summary"]["verdict"] == "none"  # nothing was checked
    assert whole.to_json()["summary"]["verdict"] in SEVERITIES


def test_journals_of_both_runs_are_kept_apart(tmp_path: Path) -> None:
    journal = journal_path(tmp_path, "standard")
    evaluate(linear(), images(), WHOLE, journal=journal)
    assert "standard, attacks only" not in journal.read_text()
    with pytest.warns(SetAsideWarning, match="the protocol is another"):
        evaluate(linear(), images(), WHOLE, journal=journal, attacks_only=True)
    assert '"protocol": "standard, attacks only"' in journal.read_text().splitlines()[0]


def test_shards_gather_to_the_run_without_checks(tmp_path: Path) -> None:
    for number in range(2):
        journal = journal_path(tmp_path, "bare", (number, 2))
        evaluate_shard(linear(), images(), WHOLE, Shard(number, 2), journal, attacks_only=True)
    gathered = evaluate(linear(), images(), WHOLE, journal=journal_path(tmp_path, "bare"), attacks_only=True)
    at_once = evaluate(linear(), images(), WHOLE, attacks_only=True)
    assert [row.predictions for row in gathered.rows] == [row.predictions for row in at_once.rows]
    assert gathered.seconds > 0 and gathered.rows[0].seconds > 0


@pytest.mark.parametrize(
    "shown",
    [
        finding,
        lambda result: markdown_evaluation(result).splitlines()[0],
        lambda result: str(result).splitlines()[0],
        repr,
        lambda result: render_evaluation(result).partition("<title>")[2].partition("</title>")[0],
        lambda result: html.unescape(render_evaluation(result).partition("<h1>")[2].partition("</h1>")[0]),
    ],
    ids=["finding", "markdown", "printed", "repr", "page title", "page heading"],
)
def test_the_first_line_never_calls_it_by_the_name_of_the_whole_protocol(shown: Callable[[Evaluation], str]) -> None:
    first_line = shown(BARE)
    assert "standard, attacks only" in first_line
    assert "standard" not in first_line.replace("standard, attacks only", "")


def test_the_finding_says_what_was_left_out_and_the_limits_what_to_do() -> None:
    assert finding(BARE).startswith(
        'Under "standard, attacks only", a worst case without panels and checks, at 8/255, model-0 classifies 41.5 %'
    )
    assert any("Only the attacks of the standard protocol" in sentence for sentence in limitations(BARE))
    assert "Here its panels and checks were left out." in render_evaluation(BARE)
    weak = replace(evaluation("smoke", 50, 45, {"FGSM": 30}), attacks_only=True, protocol="smoke, attacks only")
    assert any("The smoke protocol is a weak attack" in sentence for sentence in limitations(weak))


def test_two_runs_without_checks_are_compared() -> None:
    other = replace(BARE, model="model-1", rows=BARE.rows[:3])
    comparison = compare_models([BARE, other])
    assert [(test.measure, test.first, test.second) for test in comparison.tests] == [
        ("worst case (standard, attacks only)", "model-0", "model-1")
    ]
    assert "| checks (standard, attacks only) |  | none | none |" in comparison_markdown(comparison)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_run_without_checks_is_not_compared_with_the_whole_protocol(swapped: bool) -> None:
    both = [BARE, replace(rich(), model="model-1")]
    with pytest.raises(ConfigError, match=r"model-0 .*'standard, attacks only', model-1 .*whole.*'standard'.*only"):
        compare_models(both[::-1] if swapped else both)
    compare_models([BARE, replace(rich(), model="model-1", protocol="full")])  # other protocols do not matter


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("standrad", "did you mean 'standard'?"),
        (hosnn.standard, "expected a name, such as 'standard'"),
        (None, "expected a name"),
    ],
    ids=["misspelt", "a function", "nothing"],
)
def test_what_is_no_protocol_is_refused(protocol: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(linear(), images(), protocol)  # type: ignore[arg-type]


def test_a_protocol_by_its_name_is_the_built_in_one() -> None:
    x, y = images(12)
    by_name = evaluate(linear(), (x, y), "smoke")
    by_value = evaluate(linear(), (x, y), hosnn.smoke())
    assert (by_name.settings, by_name.rows[-1].predictions) == (by_value.settings, by_value.rows[-1].predictions)
    assert by_name.threat == "linf:8/255"
    assert evaluate(linear(), (x, y)).settings == by_name.settings


def test_the_command_runs_it_beside_the_whole_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "import torch\nfrom torch import nn\n\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    options: dict[str, Any] = {"data": "fashion-mnist-sample", "samples": 20, "out": tmp_path / "out"}
    evaluate_verb(Path(f"{source}:network"), **options)
    capsys.readouterr()
    status = evaluate_verb(Path(f"{source}:network"), **options, attacks_only=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert status == 0
    assert "smoke, attacks only (no panels, no checks)" in printed and "checks: none were run" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    stems = ("smoke-n20", "smoke-attacks-only-n20")
    assert names == {f"{stem}.{end}" for stem in stems for end in ("json", "md", "html")}
