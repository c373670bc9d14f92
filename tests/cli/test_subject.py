"""`hosnn evaluate` on models that are not ours, and the verbs that compare."""

import json
from pathlib import Path

import pytest
import torch

import hosnn
from hosnn.cli.main import main
from hosnn.data import fashion_mnist_sample
from hosnn.nn.lenet import LeNet
from hosnn.signature import calibrate, homeostatic

OWN = """
import torch
from torch import nn
from beside import CLASSES

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES))

def detached():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
        def forward(self, x):
            return self.inner(x.detach())
    return Detached()

def function():
    inner = network()
    return lambda x: inner(x)

def number():
    return 7
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "beside.py").write_text("CLASSES = 10\n")
    (folder / "networks of mine.py").write_text(OWN)
    return folder / "networks of mine.py"


def evaluated(source: str, out: Path, *options: str) -> int:
    arguments = ["evaluate", source, "--data", "fashion-mnist-sample", "--samples", "20", "--out", str(out)]
    return main([*arguments, *options])


@pytest.mark.parametrize("name", ["network", "function"])
def test_a_model_of_ones_own_is_evaluated(own: Path, name: str, tmp_path: Path) -> None:
    assert evaluated(f"{own}:{name}", tmp_path / "out") in (3, 4)  # twenty images are too few to be sure
    found = json.loads((tmp_path / "out" / "smoke-n20.json").read_text())
    assert (found["model"], found["dataset"], found["network"]["layers"]) == (name, "fashion-mnist-sample", 0)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".html"}


def test_a_model_without_a_gradient_fails_in_the_exit_status_and_in_the_first_line(own: Path, tmp_path: Path) -> None:
    assert evaluated(f"{own}:detached", tmp_path / "out") == 4
    page = (tmp_path / "out" / "smoke-n20.html").read_text()
    assert "must not be believed" in page[page.index("<h1>") : page.index("</h1>")]


@pytest.mark.parametrize(
    ("name", "message"),
    [(":nothing", "has no function 'nothing'"), (":number", "returned int"), ("x:network", "there is no file")],
)
def test_what_is_no_model_is_refused(
    own: Path, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"{own}{name}" if name.startswith(":") else f"{own.parent / 'missing.py'}:network"
    assert evaluated(source, tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_of_ones_own_needs_data(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", f"{own}:network"]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_module_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no_such_module:network", "--data", "fashion-mnist-sample"]) == 2
    assert "no module 'no_such_module'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LIF network and its homeostatic twin, saved."""
    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    lif = LeNet(channels=(3, 4), hidden=16).build().eval()
    x, _ = fashion_mnist_sample().train.batch(torch.arange(100))
    provenance = {"dataset": "fashion-mnist-sample"}
    hosnn.save(lif, folder / "lif", {"name": "lif"} | provenance)
    hosnn.save(homeostatic(lif, calibrate(lif, [x]), 0.1), folder / "ta", {"name": "ta"} | provenance)
    return folder


def test_shares_are_gathered_and_cleaned_up(pair: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(pair / "lif"), "--samples", "60", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) in (0, 3, 4)
    for share in ("0/2", "1/2"):
        assert main([*arguments, str(tmp_path / "shared"), "--shard", share]) == 0
    assert len(list((tmp_path / "shared").iterdir())) == 2
    assert main([*arguments, str(tmp_path / "shared")]) in (0, 3, 4)
    names = {path.name for path in (tmp_path / "shared").iterdir()}
    assert names == {"smoke-n60.json", "smoke-n60.md", "smoke-n60.html"}
    whole, shared = (json.loads((tmp_path / of / "smoke-n60.json").read_text()) for of in ("whole", "shared"))
    for found in (whole, shared):
        del found["seconds"]
        for row in (*found["rows"], *(row for panel in found["panels"] for row in panel["rows"])):
            del row["seconds"]
    assert whole == shared


@pytest.mark.parametrize("share", ["2/2", "1", "a/b", "-1/2"])
def test_a_share_that_is_none_is_refused(pair: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(pair / "lif"), f"--shard={share}"]) == 2
    assert "0 <=" in capsys.readouterr().err


def test_evaluations_are_compared(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lif", "ta"):
        main(["evaluate", str(pair / name), "--samples", "20", "--out", str(tmp_path / name)])
    results = [str(tmp_path / name / "smoke-n20.json") for name in ("lif", "ta")]
    capsys.readouterr()
    assert main(["compare", *results, "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == ["lif", "ta"] and found["tests"][0]["sentence"]
    assert json.loads((tmp_path / "out" / "side-by-side.json").read_text()) == found
    assert "| clean (smoke) | 20 |" in (tmp_path / "out" / "side-by-side.md").read_text()
    assert main(["compare", results[0]]) == 2


def test_controls_set_the_twins_beside_the_network(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["controls", str(pair / "ta"), "--lif", str(pair / "lif"), "--samples", "6", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared"]["models"][:2] == ["as trained", "k = 0"]
    assert len(found["rates"]) == len(found["compared"]["models"]) == 6 - len(found["left_out"])
    assert all("as trained" in (test["first"], test["second"]) for test in found["compared"]["tests"])
    assert {path.name for path in tmp_path.iterdir()} == {"controls.json", "controls.md"}
    assert main(["controls", str(pair / "lif"), "--samples", "6", "--out", str(tmp_path / "none")]) == 2
    assert "TA-LIF" in capsys.readouterr().err
