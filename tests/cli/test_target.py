"""`hosnn evaluate` on models that are not ours, and the verbs that compare."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hosnn
from hosnn.cli.main import main
from hosnn.cli.request import EvaluationRequest
from hosnn.cli.target import load_networks, load_target
from hosnn.data import fashion_mnist_sample
from hosnn.evaluation.ablations import Ablations
from hosnn.nn.lenet import LeNet
from hosnn.report.ablations_markdown import ablations_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.runtime import Hardware
from hosnn.signature import calibrate, homeostatic
from tests.evaluation import synthetic

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

def talkative():
    print("reading weights")
    inner = network()
    def logits(x):
        print(f"{len(x)} images")
        return inner(x)
    return logits

def number():
    return 7

def broken():
    raise KeyError("weights.pt")

def needs(what):
    return network()

def flat():
    return nn.Linear(784, CLASSES)

def counts():
    inner = network()
    return lambda x: (9 * inner(x)).round().long()

instance = network()
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


@pytest.mark.parametrize("name", ["network", "function", "instance"])
def test_a_model_of_ones_own_is_evaluated(own: Path, name: str, tmp_path: Path) -> None:
    assert evaluated(f"{own}:{name}", tmp_path / "out") in (3, 4)  # twenty images are too few to be sure
    found = json.loads((tmp_path / "out" / "smoke-n20.json").read_text())
    called = f"networks of mine-{name}"
    assert (found["model"], found["dataset"], found["network"]["layers"]) == (called, "fashion-mnist-sample", 0)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".html"}


def test_what_a_model_prints_does_not_come_between_the_json(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(f"{own}:talkative", tmp_path / "out", "--json") in (3, 4)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "out" / "smoke-n20.json").read_text())
    assert "reading weights" in printed.err and "images" in printed.err


def test_a_model_without_a_gradient_fails_in_the_exit_status_and_in_the_first_line(own: Path, tmp_path: Path) -> None:
    assert evaluated(f"{own}:detached", tmp_path / "out") == 4
    page = (tmp_path / "out" / "smoke-n20.html").read_text()
    assert "must not be believed" in page[page.index("<h1>") : page.index("</h1>")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":nothing", "has no function 'nothing'"),
        (":number", "returned int"),
        ("x:network", "there is no Python file"),
        (":broken", "networks of mine.py:broken raised KeyError: 'weights.pt'"),
        (":needs", "raised TypeError: needs() missing 1 required positional argument"),
    ],
)
def test_what_is_no_model_is_refused(
    own: Path, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"{own}{name}" if name.startswith(":") else f"{own.parent / 'missing.py'}:network"
    assert evaluated(source, tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_package", "raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("def network(:", "raised SyntaxError"),
        ("import sys\nsys.exit('usage: train.py DATA')", "raised SystemExit: usage: train.py DATA"),
    ],
    ids=["import", "syntax", "exit"],
)
def test_a_file_that_cannot_be_loaded_is_an_error_that_names_it(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faulty_networks.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for source in ("faulty_networks.py:network", "faulty_networks:network"):
        sys.modules.pop("faulty_networks", None)
        assert evaluated(source, tmp_path / "out") == 2
        assert f"{source} {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("flat", "does not take images (16, 1, 28, 28) torch.float32 on cpu: RuntimeError"), ("counts", ".float()")],
)
def test_a_model_that_gives_no_logits_is_an_error_of_one_line(
    own: Path, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(f"{own}:{name}", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_the_results_of_functions_of_one_name_in_several_files_do_not_meet(own: Path) -> None:
    other = own.with_name("others.py")
    other.write_text(OWN)
    targets = [load_target(Path(f"{path}:network"), "fashion-mnist-sample", None) for path in (own, other)]
    assert [target.name for target in targets] == ["networks of mine-network", "others-network"]
    assert [target.folder for target in targets] == [Path("runs") / target.name / "evaluations" for target in targets]
    networks = load_networks((Path(f"{own}:network"), Path(f"{other}:network")))
    assert set(networks) == {target.name for target in targets}


def test_brackets_in_names_are_printed_as_they_are(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich takes [bold] for markup, and fails on [/red]."""
    provenance = {"name": "lif[bold]", "dataset": "fashion-mnist-sample"}
    hosnn.save(hosnn.load(pair / "lif"), tmp_path / "renamed", provenance)
    out = tmp_path / "[bold]"
    main(["evaluate", str(tmp_path / "renamed"), "--samples", "20", "--out", str(out)])
    said = capsys.readouterr().out
    assert "lif[bold]: smoke" in said and "[bold]" in said[said.index("written to") :]
    first = Evaluation.load(out / "smoke-n20.json")
    replace(first, model="lif[/red]").save(tmp_path / "other.json")
    assert main(["compare", str(out / "smoke-n20.json"), str(tmp_path / "other.json")]) == 0
    said = capsys.readouterr().out
    assert "lif[/red]" in said and "lif[bold]" in said and "checks (smoke)" in said


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


def test_shards_are_gathered_and_their_journals_removed(pair: Path, tmp_path: Path) -> None:
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
def test_a_shard_that_does_not_exist_is_an_error(pair: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_ablations_are_compared_with_the_network(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hosnn.protocols.attacks.SAPGD_STEPS", 20)
    arguments = ["ablate", str(pair / "ta"), "--lif", str(pair / "lif"), "--samples", "6", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared"]["models"][:2] == ["as trained", "k = 0"]
    assert len(found["rates"]) == len(found["compared"]["models"]) == 6 - len(found["left_out"])
    assert all("as trained" in (test["first"], test["second"]) for test in found["compared"]["tests"])
    assert {path.name for path in tmp_path.iterdir()} == {"ablations.json", "ablations.md"}
    written = (tmp_path / "ablations.md").read_text()
    assert main(["ablate", str(pair / "lif"), "--samples", "6", "--out", str(tmp_path / "none")]) == 2
    assert "TA-LIF" in capsys.readouterr().err
    assert "| checks (controls) |" in written


def test_a_further_network_may_not_have_the_name_of_an_ablation(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = {"name": "k = 0", "dataset": "fashion-mnist-sample"}
    hosnn.save(hosnn.load(pair / "lif"), tmp_path / "other", provenance)
    out = tmp_path / "out"
    assert main(["ablate", str(pair / "ta"), "--others", str(tmp_path / "other"), "--out", str(out)]) == 2
    assert "k = 0" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_networks_of_other_layers_are_in_the_table_of_firing_rates() -> None:
    models = [replace(synthetic.evaluation("controls", 10, 9, {"PGD": 5}), model=name) for name in ("a", "b")]
    rates = {"a": {"body.1": 0.25, "body.3": 0.5}, "b": {"layers.0": 0.125}}
    found = Ablations(
        model="a",
        compared=compare_models(models),
        rates=rates,
        corruptions={},
        steps={},
        left_out=(),
        seed=0,
        versions={},
        machine={},
    )
    text = ablations_markdown(found)
    assert "| network | body.1 | body.3 | layers.0 |" in text
    assert "| a | 0.250 | 0.500 | – |" in text and "| b | – | – | 0.125 |" in text


def test_a_worker_elsewhere_finds_data_given_by_a_relative_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.npz").write_bytes(b"")
    request = EvaluationRequest(
        model=Path("net"),
        protocol="smoke",
        threat="linf:8/255",
        samples=None,
        seed=0,
        data="two.npz",
        data_folder=None,
        transfer_sources=(),
        out=None,
        hardware=Hardware(),
    )
    assert request.for_worker(tmp_path / "share", "cpu").data == str(tmp_path / "two.npz")
    assert replace(request, data="fashion-mnist").for_worker(tmp_path, "cpu").data == "fashion-mnist"
    assert replace(request, data=None).for_worker(tmp_path, "cpu").data is None
