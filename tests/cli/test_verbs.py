"""The command line as a user meets it: what it prints, what it leaves behind, its exit status."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hosnn.cli.evaluate import STATUS
from hosnn.cli.main import VERBS, main
from hosnn.cli.train import train
from hosnn.data import fashion_mnist_sample

TINY = ("--set", "network.channels=2,3", "--set", "network.hidden=8", "--set", "optim.epochs=1")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hosnn(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny TA-LIF run with the LIF run it starts from, beside each other."""
    runs = tmp_path_factory.mktemp("runs with spaces")
    arguments = ["train", "demo:homeostatic_clean", *TINY, "--set", "start.optim.epochs=1", "--runs", str(runs)]
    assert main(arguments) == 0
    return runs


def test_every_verb_explains_itself(hosnn: Run):
    for verb in VERBS:
        status, out, _ = hosnn(verb, "--help")
        assert status == 0
        assert f"hosnn {verb}" in out
        assert "For example" in out


def test_train_without_a_recipe_lists_the_recipes(hosnn: Run):
    status, out, _ = hosnn("train")
    assert status == 0
    assert "demo:homeostatic_fgsm" in out
    assert "fashion_mnist:lif_clean" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "nope"), "module:function"),
        (("train", "demo:lif_fgsmm"), "did you mean 'demo:lif_fgsm'?"),
        (("train", "fashion_mnits:lif_fgsm"), "did you mean 'fashion_mnist:lif_fgsm'?"),
        (("train", "demo:lif_fgsm", "--set", "optim.lrr=1"), "Optimisation has no field 'lrr'; did you mean 'lr'?"),
        (("train", "demo:lif_fgsm", "--set", "optim.lr=fast"), "expected float"),
        (("train", "demo:lif_fgsm", "--set", "optim.lr=-1"), "lr = -1"),
        (("train", "demo:lif_fgsm", "--set", "optim.epochs=0"), "epochs = 0"),
        (("train", "demo:lif_fgsm", "--set", "optim.epochs"), "expected field=value"),
        (("train", "demo:lif_fgsm", "--set", "homeostasis.adaptation=1"), "no fields to set"),
        (("train", "demo:homeostatic_clean", "--set", "homeostasis.share=row"), "'neuron' or 'channel' or 'layer'"),
        (("train", "demo:lif_fgsm", "--max-time", "0"), "a time > 0"),
        (("train", "demo:lif_fgsm", "--accelerator", "abacus"), "hosnn doctor"),
        (("evaluate", "nowhere"), "does not exist"),
        (("evaluate", ".", "--threat", "linf:8"), "8/255 if you meant 8"),
        (("evaluate", ".", "--threat", "linf:-1/255"), ">= 0"),
        (("evaluate", ".", "--threat", "linf:much"), "a number or a fraction"),
        (("evaluate", ".", "--threat", "linf:2/0"), "a number or a fraction"),
        (("evaluate", ".", "--threat", "l7:1"), "linf, l2 or l1"),
        (("evaluate", ".", "--protocol", "pape"), "did you mean 'paper'?"),
        (("reproduce", "fashion"), "did you mean 'fashion-mnist'?"),
        (("calibrate", "nowhere"), "does not exist"),
        (("train", "demo:lif_fgsm", "--no-such-option"), "no-such-option"),
        (("fly",), "fly"),
    ],
)
def test_what_a_user_got_wrong_is_named_and_exits_with_2(hosnn: Run, tmp_path: Path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = hosnn(*arguments)
    assert status == 2
    assert says in " ".join((out + err).split())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(hosnn: Run, tmp_path: Path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    status, _, err = hosnn("train", "demo:lif_clean", *TINY, "--runs", in_the_way)
    assert status == 2
    assert "cannot write into" in err
    assert in_the_way.read_text() == "not a folder"


def test_a_finished_run_is_not_trained_again_and_an_other_experiment_is_refused(hosnn: Run, trained: Path):
    name = "demo-start"
    before = {path: path.stat().st_mtime_ns for path in (trained / name).rglob("*")}
    again = (*TINY, "--set", "start.optim.epochs=1", "--runs", trained)
    status, out, _ = hosnn("train", "demo:homeostatic_clean", *again, "--json")
    assert status == 0
    assert json.loads(out)["finished"] is True
    assert {path: path.stat().st_mtime_ns for path in (trained / name).rglob("*")} == before
    status, _, err = hosnn("train", "demo:homeostatic_clean", *again, "--set", "optim.lr=1e-3")
    assert status == 2
    assert "holds another experiment" in err


def test_evaluate_writes_json_and_html_and_prints_them(hosnn: Run, trained: Path, tmp_path: Path):
    status, out, _ = hosnn("evaluate", trained / "demo-homeostatic-clean", "--samples", 20, "--out", tmp_path, "--json")
    printed = json.loads(out)
    assert status == STATUS[printed["summary"]["verdict"]]
    assert printed == json.loads((tmp_path / "smoke-n20.json").read_text())
    assert printed["samples"] == 20
    assert (tmp_path / "smoke-n20.html").read_text().startswith("<!doctype html>")
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_evaluate_on_validation_images_says_so_in_name_and_title(hosnn: Run, trained: Path, tmp_path: Path):
    command = ("evaluate", trained / "demo-start", "--samples", 20, "--out", tmp_path, "--attacks-only")
    results = []
    for split in ("test", "validation"):
        assert hosnn(*command, "--split", split)[0] == 0
        suffix = "" if split == "test" else "-validation"
        path = tmp_path / f"smoke-attacks-only-n20{suffix}.json"
        results.append(json.loads(path.read_text()))
        assert ("validation images" in path.with_suffix(".html").read_text()) == (split == "validation")
    test, validation = results
    assert validation["dataset"] == f"{test['dataset']}, validation images"
    assert validation["dataset_sha256"] == test["dataset_sha256"]
    assert set(validation["index"]) <= set(fashion_mnist_sample().validation.index.tolist())
    status, _, err = hosnn(*command, "--split", "all")
    assert status == 2 and "--split got 'all'" in err


def test_calibrate_shows_and_writes_the_signature_of_a_lif_network_only(hosnn: Run, trained: Path, tmp_path: Path):
    target = tmp_path / "signature.safetensors"
    status, out, _ = hosnn("calibrate", trained / "demo-start", "--out", target)
    assert status == 0
    assert target.exists()
    assert "5,400 images" in out
    status, _, err = hosnn("calibrate", trained / "demo-homeostatic-clean")
    assert status == 2
    assert "homeostatic already" in err


def test_doctor_tells_what_is_here(hosnn: Run):
    status, out, _ = hosnn("doctor", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["versions"]["torch"]
    assert any(known["name"] == "fashion-mnist-sample" and known["images"] for known in found["data"])


def test_a_stopped_training_says_how_to_go_on(hosnn: Run, tmp_path: Path):
    arguments = ("train", "demo:lif_clean", *TINY, "--runs", tmp_path)
    status, out, _ = hosnn(*arguments, "--max-time", "0.001")
    assert status == 1
    assert "--resume" in out


def test_ctrl_c_outside_a_safe_point_is_130_and_a_message(hosnn: Run, monkeypatch):
    def interrupted(*, json_output: bool = False) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "doctor", interrupted)
    status, _, err = hosnn("doctor")
    assert status == 130
    assert "interrupted" in err


def test_the_train_verb_is_an_ordinary_function(tmp_path: Path, capsys):
    assert train(None) == 0
    assert "demo:lif_clean" in capsys.readouterr().out


@pytest.mark.parametrize("samples", [0, -3, 10**6])
def test_more_or_fewer_images_than_there_are_are_refused(hosnn: Run, trained: Path, samples: int):
    status, _, err = hosnn("evaluate", trained / "demo-homeostatic-clean", "--samples", samples)
    assert status == 2
    assert f"--samples got {samples}; fashion-mnist-sample has 1000 test images" in " ".join(err.split())


def test_a_changed_protocol_does_not_replace_the_plain_result(hosnn: Run, trained: Path, tmp_path: Path):
    model = trained / "demo-homeostatic-clean"
    for extra in ((), ("--samples", 30), ("--threat", "l2:0.5"), ("--seed", 1)):
        status, _, err = hosnn("evaluate", model, "--samples", 20, *extra, "--out", tmp_path, "--json")
        assert status in STATUS.values(), err
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {"smoke-n20.json", "smoke-n30.json", "smoke-l2_0.5-n20.json", "smoke-n20-seed1.json"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", ":lif_fgsm"), "module:function"),
        (("train", ".x:y"), "module:function"),
        (("train", "fashion_mnist:replace"), "unknown recipe"),
        (("train", "json:dumps"), "needs arguments"),
        (("train", "demo:lif_clean", "--set", "network.channels=2"), "two numbers of channels"),
        (("train", "demo:lif_clean", "--set", "network.hidden=-3"), "sizes of at least 1"),
        (("train", "demo:lif_clean", "--set", "network.image=1,8,8"), "large enough"),
        (("train", "demo:lif_clean", "--set", "network.classes=5"), "make them agree"),
        (("train", "demo:lif_clean", "--set", "name=../elsewhere"), "expected letters"),
        (("train", "demo:homeostatic_clean", "--set", "homeostasis.adaptation=inf"), "finite k"),
        (("train", "demo:lif_clean", "--seed", 2**70), "seed"),
        (("train", "demo:lif_clean", "--threads", 9999999999), "threads got"),
        (("reproduce", "demo", "--devices", 2, "--accelerator", "cpu"), "only `hosnn train` shares work"),
        (("train", "demo:lif_clean", "--devices", 0), "at least 1 of each"),
        (("train", "demo:lif_clean", "--set", "optim.accumulate=5"), "shared evenly"),
        (("train", "demo:lif_clean", "--set", "statistics=some"), "all-ranks"),
        (("reproduce", "demo", "--seeds", 0, 0), "each once"),
        (("sweep",), "`hosnn train` lists"),
        (("sweep", "demo:lif_fgsmm"), "did you mean 'demo:lif_fgsm'?"),
        (("sweep", "demo:lif_fgsm", "--grid", "optim.lr"), "path=value,value"),
        (("sweep", "demo:lif_fgsm", "--grid", "optim.lr=1,fast"), "demo:lif_fgsm with optim.lr=fast"),
        (("sweep", "demo:lif_fgsm", "--workers", 0), "at least 1"),
        (("sweep", "demo:lif_fgsm", "--workers", 2, "--address", "auto"), "no --address"),
        (("sweep", "demo:lif_fgsm", "--gpus-per-trial", 2), "0 to 1"),
        (("sweep", "demo:lif_fgsm", "--accelerator", "cuda"), "--gpus-per-trial"),
        (("sweep", "demo:lif_fgsm", "--devices", 2), "leave both at 1"),
        (("sweep", "demo:lif_fgsm", "--samples", 20), "a --protocol"),
        (("sweep", "demo:lif_fgsm", "--protocol", "smok"), "did you mean 'smoke'?"),
        (("sweep", "demo:lif_fgsm", "--max-time", 0), "a time > 0"),
        (("evaluate", ".", "--shards", 0), "at least 1"),
        (("evaluate", ".", "--shards", 2, "--shard", "0/2"), "--shard I/N alone"),
        (("evaluate", ".", "--address", "auto"), "--shards N"),
    ],
)
def test_odd_values_are_refused_before_anything_is_written(hosnn: Run, tmp_path: Path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = hosnn(*arguments)
    assert status == 2
    assert says in " ".join((out + err).split())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
