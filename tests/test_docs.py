"""What README and docs claim is true: examples run, names exist, tables and percentages come from their JSON."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot

import hosnn
from hosnn.cli.main import VERBS
from hosnn.report.reproduction_tables import reproduction_markdown
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import ReproductionResult
from hosnn.runtime import Hardware
from hosnn.signature import fingerprint

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "docs" / "results").glob("*/comparison.json"))


def update_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_update", ROOT / "docs" / "update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/evaluation.md", "docs/training.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # they write files
    monkeypatch.setenv("MPLBACKEND", "agg")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    pyplot.close("all")


NAME = re.compile(r"(?<![\w/.-])hosnn(?:\.[A-Za-z_]\w*)+")
"""A dotted name of ours, e.g. `hosnn.nn.layers.ConstantCoding`, where it is not part of a path or an address."""


def texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every docstring and message of the source and the benchmarks, and of README and docs."""
    for page in (*update_module().PAGES, *(ROOT / "bench").glob("*.md")):
        yield page.name, page.read_text(encoding="utf-8")
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "bench").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


def test_every_name_of_ours_in_messages_and_docs_exists():
    named = {(place, name) for place, text in texts() for name in NAME.findall(text)}
    assert len(named) > 20
    assert sorted(f"{place}: {name}" for place, name in named if not exists(name)) == []


def commands() -> Iterator[tuple[str, str, str]]:
    """(place, verb, options) of every command that README, docs and the verbs' own help show."""
    pages = [(page.name, page.read_text(encoding="utf-8")) for page in update_module().PAGES]
    helps = [(f"hosnn {verb} --help", inspect.getdoc(function) or "") for verb, function in VERBS.items()]
    for place, text in [*pages, *helps]:
        lines = text.replace("\\\n", " ").splitlines()
        for line in lines if " --help" in place else [line for line in lines if line.startswith("    ")]:
            for verb, options in re.findall(r"(?:^|-m )\s*hosnn ([a-z]+)\b(.*)", line):
                yield place, verb, options


def test_every_command_that_is_shown_has_its_verb_and_its_options():
    wrong = []
    shown = list(commands())
    assert {verb for _, verb, _ in shown} == set(VERBS)
    hardware = {field.name for field in fields(Hardware)} | {"json", "help"}
    for place, verb, options in shown:
        known = hardware | {name.replace("_", "-") for name in inspect.signature(VERBS[verb]).parameters}
        wrong += [
            f"{place}: hosnn {verb} --{name}" for name in re.findall(r"--([a-z-]+)", options) if name not in known
        ]
    assert wrong == []


@pytest.mark.parametrize("page", update_module().PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_their_json(page: Path):
    text = page.read_text(encoding="utf-8")
    assert update_module().updated(text) == text, "run: python docs/update.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_results_say_how_they_were_made(path: Path):
    comparison = ReproductionResult.load(path)
    for cell in comparison.cells:
        for evaluation in cell.evaluations.values():
            assert len(evaluation.index) == len(set(evaluation.index)) == len(evaluation.labels)
            assert evaluation.versions["torch"]
            assert evaluation.machine["processor"]
            assert len(evaluation.model_sha256) == len(evaluation.dataset_sha256) == 64


def test_every_percentage_in_the_results_page_is_in_its_json():
    page = ROOT / "docs" / "fashion-mnist.md"
    comparison = ReproductionResult.load(ROOT / "docs" / "results" / "fashion-mnist" / "comparison.json")
    known = {f"{number.accuracy:.2f}" for number in comparison.published}
    known |= set(re.findall(r"(\d+\.\d) \(", reproduction_markdown(comparison)))  # means over seeds
    eager = ReproductionResult.load(ROOT / "docs" / "results" / "fashion-mnist" / "eager" / "comparison.json")
    wide = ReproductionResult.load(ROOT / "docs" / "results" / "fashion-mnist-wide" / "comparison.json")
    for cell in (*comparison.cells, *eager.cells, *wide.cells):
        known.add(f"{100 * cell.validation:.2f}")
        for evaluation in cell.evaluations.values():
            shares = [evaluation.clean_accuracy, evaluation.worst_case]
            shares += [evaluation.accuracy(row.attack) for row in evaluation.rows]
            shares += [accuracy for _, accuracy, _ in evaluation.curve_points()]
            known |= {f"{100 * share:.2f}" for share in shares}
    for path in (ROOT / "docs" / "results" / "fashion-mnist-wide" / "leaking").glob("*.jsonl"):
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        shares = [epoch[name] for epoch in epochs for name in ("validation_accuracy", "clean") if name in epoch]
        known |= {f"{100 * share:.2f}" for share in shares}
    results = ROOT / "docs" / "results" / "fashion-mnist"
    folders = (
        *(results / name for name in ("standard", "former-standard", "standard-l2")),
        *(results / "seeds").iterdir(),
    )
    for evaluation in (found for folder in folders for found in update_module().evaluations(folder)):
        shares = [evaluation.clean_accuracy, evaluation.worst_case]
        if evaluation.worst_case_by_argmax is not None:
            shares.append(evaluation.worst_case_by_argmax)
        shares += [evaluation.accuracy(row.attack) for row in evaluation.rows]
        table = attack_matrix(evaluation)
        shares += table.by_estimator if table else ()
        known |= {f"{100 * share:.2f}" for share in shares}
    prose = re.sub(r"<!-- docs/results.*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    claimed = re.findall(r"(\d+\.\d+) %", prose)
    assert claimed
    assert set(claimed) <= known


def test_no_peer_attacks_better_than_ours_by_more_than_was_promised():
    peers = json.loads((ROOT / "docs" / "results" / "attacks" / "peers.json").read_text(encoding="utf-8"))
    assert peers["samples"] == 1000 and {pair["peer"] for pair in peers["pairs"]} >= {"torchattacks", "pyautoattack"}
    assert [pair["network"] for pair in peers["pairs"] if pair["attack"] == "protocol full"] == ["clean", "adversarial"]
    for pair in peers["pairs"]:
        assert 100 * (pair["ours"]["robust_accuracy"] - pair["theirs"]["robust_accuracy"]) <= 0.3 + 1e-9, pair["attack"]


STANDARD = sorted((ROOT / "docs" / "results" / "fashion-mnist" / "standard").glob("*/standard.json"))


@pytest.mark.parametrize("path", STANDARD, ids=lambda path: path.parent.name)
def test_the_white_box_side_of_standard_is_strong_enough(path: Path):
    evaluation = Evaluation.load(path)
    network = hosnn.load(ROOT / "models" / "fashion-mnist" / path.parent.name)
    assert fingerprint(network) == evaluation.model_sha256
    checks = {check.name: check for check in evaluation.checks}
    assert checks["queries and transfer"].value <= 0.005
    assert evaluation.samples == 1000
    assert {row.kind for row in evaluation.rows} == {"white-box", "queries", "transfer"}


def test_the_networks_behind_the_eager_results_are_here():
    comparison = ReproductionResult.load(ROOT / "docs" / "results" / "fashion-mnist" / "eager" / "comparison.json")
    for cell in comparison.cells:
        network = hosnn.load(ROOT / "models" / "fashion-mnist" / cell.experiment.removeprefix("fashion-mnist-"))
        for evaluation in cell.evaluations.values():
            assert fingerprint(network) == evaluation.model_sha256
