"""The paper's rows beside ours."""

from dataclasses import replace
from typing import Any

from hosnn.report.paper_rows import paper_rows
from hosnn.results.evaluation import Evaluation
from tests.evaluation.synthetic import comparison, evaluation


def columns(text: str, row: str) -> list[str]:
    """The last three cells of a row: PGD-7, worst case at 2/255 and at 8/255."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("| ").split("|")[-3:]]


def beside(threat: str, right: int, sha256: str = "ab" * 32) -> Evaluation:
    result = evaluation("standard", 1000, 900, {"APGD": right})
    rows = tuple(replace(row, threat=threat) for row in result.rows)
    return replace(result, cascade=True, model="run-0-0", threat=threat, rows=rows, model_sha256=sha256)


def test_an_evaluation_beside_a_reproduction_stands_at_its_own_eps() -> None:
    for threat, place in (("linf:2/255", 1), ("linf:8/255", 2)):
        row = columns(paper_rows([comparison()], [beside(threat, 320)]), "LIF, clean-trained, 1 seed")
        assert row[place].startswith("32.0 [") and row[3 - place] == "–" and row[0].startswith("30.5 [")


def test_one_of_other_weights_is_marked() -> None:
    weights = {sha256: [beside("linf:8/255", 320, sha256)] for sha256 in ("00" * 32, "ab" * 32)}
    again, same = (columns(paper_rows([comparison()], also), "LIF, clean-trained, 1 seed") for also in weights.values())
    assert again[-1].endswith("n = 1,000, trained again") and same[-1].endswith("n = 1,000")
    assert again[:-1] == same[:-1]


def test_a_number_of_the_row_s_own_weights_goes_before_one_beside_it() -> None:
    result = comparison()
    key = "standard, attacks only"
    own = replace(beside("linf:8/255", 250), protocol=key)
    cells = tuple(replace(cell, evaluations={**cell.evaluations, key: own}) for cell in result.cells)
    row = columns(paper_rows([replace(result, cells=cells)], [beside("linf:8/255", 320)]), "LIF, clean-trained, 1 seed")
    assert row[-1].startswith("25.0 [") and row[-1].endswith("ᵃ"), "marked, as no checks were made"


def test_evaluations_of_a_network_beside_it_are_all_shown() -> None:
    also = [beside("linf:2/255", 320), beside("linf:8/255", 250)]
    row = columns(paper_rows([comparison()], also), "LIF, clean-trained, 1 seed")
    assert row[1].startswith("32.0 [") and row[2].startswith("25.0 [")


def test_hours_are_processor_time_where_it_was_recorded() -> None:
    result = comparison()

    def hours(**times: Any) -> str:
        cells = tuple(replace(cell, **times) for cell in result.cells)
        text = paper_rows([replace(result, cells=cells)])
        (line,) = (line for line in text.splitlines() if line.startswith("| LIF, clean-trained, 1 seed |"))
        return line.split("|")[5].strip()

    assert hours(training_seconds=7200.0) == "2.0 (wall)"
    assert hours(training_seconds=7200.0, cpu_seconds=3600.0) == "1.0"
    assert hours(training_seconds=0.0, cpu_seconds=0.0) == "–", "a converted network"


def test_published_numbers_stand_above() -> None:
    lines = paper_rows([comparison()]).splitlines()
    first = next(at for at, line in enumerate(lines) if "published" in line)
    assert "30.54" in lines[first] and "74.91" in lines[first + 1] and "LIF, clean-trained" in lines[first + 2]


def test_time_steps_are_those_of_the_experiment() -> None:
    result = comparison()
    experiments = {cell.experiment: {"network": {"steps": 32}} for cell in result.cells}
    known, unknown = (paper_rows([replace(result, experiments=given)]) for given in (experiments, {}))
    assert known.count("| 32 |") == 4 and "| 32 |" not in unknown
