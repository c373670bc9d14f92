"""The study at its smallest size, and its page: every number printed is in the JSON."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosnn.cli.main import main
from hosnn.theory.study import Effort
from hosnn.theory.study.everything import PARTS
from hosnn.theory.tables import tables

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results" / "theory"


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    results: dict[str, Any] = json.loads((RESULTS / "theory.json").read_text(encoding="utf-8"))
    return results


def test_every_decimal_number_of_the_page_is_in_the_json_to_the_digits_printed(stored: dict[str, Any]):
    page = re.sub(r"arXiv[: ][\d.]+", "", (DOCS / "theory.md").read_text(encoding="utf-8"))
    printed = set(re.findall(r"(?<![\d.\w])\d+\.\d+(?![\d.])", page))
    assert len(printed) > 100
    known: dict[int, set[str]] = {}
    values = [abs(value) for value in numbers(stored)]
    for number in sorted(printed):
        digits = len(number.partition(".")[2])
        if digits not in known:
            known[digits] = {f"{value:.{digits}f}" for value in values}
        assert number in known[digits], f"{number} is on the page and not in theory.json"


def test_stored_tables_are_made_from_the_stored_numbers(stored: dict[str, Any]):
    for name, table in tables(stored).items():
        assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == table


def test_every_figure_of_the_page_is_there():
    page = (DOCS / "theory.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\(results/theory/([\w-]+\.svg)\)", page))
    assert shown == {path.name for path in RESULTS.glob("*.svg")}


def test_the_frozen_rate_boundary_is_met_within_two_percent(stored: dict[str, Any]):
    rows = stored["recursion"]["boundary"]
    assert len(rows) == 25
    assert all(row["upper_deviation"] < 0.02 and abs(row["simulated_lower_over_upper"]) < 0.02 for row in rows)
    assert all(row["spiking_deviation"] < 0.02 for row in stored["recursion"]["timing"])


def test_monte_carlo_agrees_with_the_exact_growth(stored: dict[str, Any]):
    for row in stored["recursion"]["growth"]:
        for exact, simulated, error in zip(row["exact"], row["simulated"], row["standard_error"], strict=True):
            assert abs(exact - simulated) <= 4 * error + 1e-9


@pytest.mark.slow
def test_the_command_writes_what_the_page_needs(tmp_path: Path):
    assert main(["theory", "--neurons", "32", "--steps", "80", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "theory.json").read_text())
    assert set(written) == {"effort", *PARTS}
    assert all(math.isfinite(value) for value in numbers(written))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in RESULTS.iterdir()}


@pytest.mark.parametrize(("arguments", "says"), [(("--neurons", "3"), "16 neurons"), (("--steps", "8"), "80 steps")])
def test_a_study_too_small_is_refused(arguments, says, capsys, tmp_path):
    assert main(["theory", *arguments, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_short_runs_say_the_same_twice():
    part = PARTS["short_runs"]
    assert part(Effort(16, 80)) == part(Effort(16, 80))
