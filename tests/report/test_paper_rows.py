"""The paper's rows beside ours."""

from dataclasses import replace

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
        row = columns(paper_rows([comparison()], [beside(threat, 320)]), "LIF, clean-trained")
        assert row[place].startswith("32.0 [") and row[3 - place] == "–" and row[0].startswith("30.5 [")


def test_one_of_other_weights_is_marked() -> None:
    weights = {sha256: [beside("linf:8/255", 320, sha256)] for sha256 in ("00" * 32, "ab" * 32)}
    again, same = (columns(paper_rows([comparison()], also), "LIF, clean-trained") for also in weights.values())
    assert again[-1].endswith("n = 1,000, trained again") and same[-1].endswith("n = 1,000")
    assert again[:-1] == same[:-1]


def test_published_numbers_stand_above() -> None:
    lines = paper_rows([comparison()]).splitlines()
    first = next(at for at, line in enumerate(lines) if "published" in line)
    assert "30.54" in lines[first] and "74.91" in lines[first + 1] and "LIF, clean-trained" in lines[first + 2]


def test_time_steps_are_those_of_the_experiment() -> None:
    result = comparison()
    experiments = {cell.experiment: {"network": {"steps": 32}} for cell in result.cells}
    known, unknown = (paper_rows([replace(result, experiments=given)]) for given in (experiments, {}))
    assert known.count("| 32 |") == 4 and "| 32 |" not in unknown
