"""The leaderboard: what was measured comes first, and a network is called what its evaluation found."""

import json
from dataclasses import replace
from pathlib import Path

from hosnn.report.leaderboard import leaderboard
from hosnn.results.evaluation import Evaluation

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs" / "results" / "fashion-mnist" / "standard" / "lif-fgsm" / "standard.json"


def test_measured_rows_come_first_and_spikes_of_other_libraries_are_spikes(tmp_path: Path) -> None:
    folder = tmp_path / "leaderboard"
    result = Evaluation.load(STORED)
    for kind in ("foreign", "none", "unknown"):
        (folder / kind).mkdir(parents=True)
        changed = replace(result, model=f"net-{kind}", network=replace(result.network, spiking=kind, layers=0))
        changed.save(folder / kind / "standard.json")
    row = {"data": "fashion-mnist", "threat": "linf:8/255", "network": "theirs", "clean": None, "robust": 99.0}
    reported = {"rows": [row | {"attack": "PGD-7", "source": "a paper"}]}
    (folder / "reported.json").write_text(json.dumps(reported), encoding="utf-8")
    lines = leaderboard(folder).splitlines()
    kinds = {name: next(line for line in lines if f"net-{name} " in line) for name in ("foreign", "none", "unknown")}
    assert "| spiking |" in kinds["foreign"]
    assert "| ANN |" in kinds["none"]
    assert "| unknown |" in kinds["unknown"]
    rows = [line for line in lines[lines.index("### fashion-mnist, linf:8/255") :] if line.startswith("| ")]
    assert "theirs" in rows[-1]  # after the measured rows, though its number is the largest
    assert "reported: a paper" in rows[-1]


def test_validation_images_have_a_table_of_their_own(tmp_path: Path) -> None:
    result = Evaluation.load(STORED)
    for name, dataset in (
        ("test", "fashion-mnist"),
        ("validation", "fashion-mnist, 3 images lossy, validation images"),
    ):
        (tmp_path / name).mkdir()
        replace(result, model=name, dataset=dataset).save(tmp_path / name / "standard.json")
    (tmp_path / "reported.json").write_text('{"rows": []}', encoding="utf-8")
    page = leaderboard(tmp_path)
    assert "### fashion-mnist, linf:8/255" in page and "### fashion-mnist, validation images, linf:8/255" in page
