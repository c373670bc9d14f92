"""`hosnn reproduce` on the smallest 2x2: what it writes, and that the same command resumes rather than begins again."""

import json
import re
from pathlib import Path

import pytest

from hosnn.cli.main import main
from hosnn.recipes.reproductions import REPRODUCTIONS
from hosnn.results.reproduction import ReproductionResult
from tests.reliability.commands import TINY_DEMO


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPRODUCTIONS, "demo", TINY_DEMO)


def test_the_whole_way_and_a_second_run_that_does_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out of the way"
    command = ["reproduce", "demo", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert main([*command, "--max-time", "0.03"]) == 1
    assert "resumes from there" in capsys.readouterr().err
    assert not (out / "comparison.json").exists()
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "PGD-7" in printed
    comparison = ReproductionResult.load(out / "comparison.json")
    assert [(cell.neuron, cell.training) for cell in comparison.cells] == [
        ("LIF", "clean"),
        ("LIF", "FGSM 2/255"),
        ("TA-LIF", "clean"),
        ("TA-LIF", "FGSM 2/255"),
    ]
    assert len({cell.epochs for cell in comparison.cells}) == 1
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert (out / "bars.svg").read_bytes().startswith(b"<?xml")
    assert (out / "table.md").read_text().count("\n|") >= 4
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    results = {path: path.read_bytes() for path in tmp_path.rglob("evaluations/*.json")}
    assert len(results) == 8
    assert main([*command, "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == weights
    assert {path: path.read_bytes() for path in tmp_path.rglob("evaluations/*.json")} == results
    assert json.loads(capsys.readouterr().out) == json.loads((out / "comparison.json").read_text())
