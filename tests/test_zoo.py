"""Networks in the package: they load offline, are small, and their cards agree with the results that they name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import hosnn
from hosnn import zoo
from hosnn.errors import CheckpointError
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import percent
from hosnn.signature import fingerprint

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", zoo.names())
def test_it_loads_by_name_and_is_what_its_card_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    network: Any = hosnn.load(name)
    folder = zoo.folder(name)
    assert folder is not None
    channels, height, width = network.blueprint.image
    logits = network(torch.rand(2, channels, height, width))
    assert logits.shape == (2, network.blueprint.classes) and logits.isfinite().all()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_100_000
    card = (folder / "card.md").read_text()
    result = re.search(r"result: (docs/results/\S+\.json)", card)
    assert result is not None
    if not (ROOT / result[1]).exists():
        pytest.skip("the results lie beside the package in a checkout only")
    measured = Evaluation.load(ROOT / result[1])
    assert measured.worst_case is not None and measured.verdict != "fail"
    assert measured.model_sha256 == fingerprint(network) and f"{fingerprint(network)}" in card
    assert f"{percent(measured.worst_case)} %" in card and measured.threat in card


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert zoo.folder("nothing") is None
    with pytest.raises(CheckpointError, match=r"in the package"):
        hosnn.load("nothing")
