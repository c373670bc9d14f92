"""`hosnn reproduce` on the smallest 2x2: what it writes, and that the same command resumes rather than begins again."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hosnn.cli.reproduce as reproduce_verb
from hosnn.cli import reproduction_pipeline
from hosnn.cli.main import main
from hosnn.data import load_dataset
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.recipes.reproductions import REPRODUCTIONS, Conversions, FurtherSeeds, PlannedEvaluation
from hosnn.recipes.robust_parts import adversarial
from hosnn.recipes.variants import with_dataset
from hosnn.report.conversion_figure import against_steps
from hosnn.report.paired_networks import paired_markdown
from hosnn.results.reproduction import ReproductionResult
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.training.experiment import Experiment
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


def test_a_table_grows_network_by_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    def measure(runs: str, *more: str) -> ReproductionResult:
        assert main(["reproduce", "demo", "--runs", str(tmp_path / runs), "--out", str(out), *more]) == 0
        return ReproductionResult.load(out / "comparison.json")

    def names(result: ReproductionResult) -> list[str]:
        return [cell.experiment.removeprefix("demo-") for cell in result.cells]

    first = measure("one", "--only", "homeostatic-fgsm")
    assert names(first) == ["homeostatic-fgsm"]
    both = measure("two", "--only", "lif-clean")  # the runs of the first are gone
    assert names(both) == ["lif-clean", "homeostatic-fgsm"]
    assert both.cells[1] == first.cells[0] and set(both.experiments) == {cell.experiment for cell in both.cells}
    again = measure("one", "--only", "homeostatic-fgsm", "lif-clean")
    assert names(again) == names(both) and again.cells[1] == first.cells[0]
    more = measure("two", "--only", "lif-clean", "--seeds", "1")
    assert names(more) == ["lif-clean", "homeostatic-fgsm", "lif-clean-seed1"]
    assert set(more.starts) == {"demo-start", "demo-start-seed1"}
    assert more.start_seconds == sum(more.starts.values()) > first.start_seconds
    capsys.readouterr()
    whole = measure("two", "--seeds", "2")  # not --only
    said = " ".join(capsys.readouterr().err.split())
    assert "held demo-lif-clean, demo-homeostatic-fgsm, demo-lif-clean-seed1, not measured now or in another" in said
    grid = ("lif-clean", "lif-fgsm", "homeostatic-clean", "homeostatic-fgsm")
    assert names(whole) == [f"{name}-seed2" for name in grid]
    (kept,) = out.glob("comparison.kept-*.json")
    assert ReproductionResult.load(kept) == more


def test_a_network_that_another_command_measures_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["reproduce", "demo", "--out", str(tmp_path / "out"), "--runs"]
    measured = reproduction_pipeline.Pipeline.cell

    def slow(self: Any, *arguments: Any) -> Any:
        monkeypatch.setattr(reproduction_pipeline.Pipeline, "cell", measured)
        assert main([*command, str(tmp_path / "two"), "--only", "homeostatic-clean"]) == 0
        return measured(self, *arguments)

    monkeypatch.setattr(reproduction_pipeline.Pipeline, "cell", slow)
    assert main([*command, str(tmp_path / "one"), "--only", "lif-clean"]) == 0
    table = ReproductionResult.load(tmp_path / "out" / "comparison.json")
    assert [cell.experiment for cell in table.cells] == ["demo-lif-clean", "demo-homeostatic-clean"]


def test_a_table_grows_seed_by_seed_where_further_seeds_are_planned_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PlannedEvaluation("smoke", samples=10, panel_samples=10, further_seeds=FurtherSeeds.ATTACKS_ONLY)
    columns = (("clean", plan.key, "clean"), ("worst", plan.key, "worst"))
    monkeypatch.setitem(REPRODUCTIONS, "demo", replace(TINY_DEMO, plans=(plan,), columns=columns))
    out = tmp_path / "demo"
    for seed in "012":
        assert main(["reproduce", "demo", "--runs", str(tmp_path), "--only", "lif-clean", "--seeds", seed]) == 0
    table = ReproductionResult.load(out / "comparison.json")
    assert [list(cell.evaluations) for cell in table.cells] == [["smoke"], *[["smoke, attacks only"]] * 2]
    # As where the seed that another command measured in full came second.
    replace(table, cells=(table.cells[1], table.cells[0])).save(out / "comparison.json")
    assert main(["reproduce", "demo", "--runs", str(tmp_path), "--only", "lif-fgsm"]) == 0
    assert len(ReproductionResult.load(out / "comparison.json").cells) == 3


def test_a_network_has_the_same_bits_whether_it_is_trained_alone_or_with_the_others(tmp_path: Path) -> None:
    command = ["reproduce", "demo", "--runs", str(tmp_path), "--threads", "2", "--only", "lif-clean"]
    assert main([*command, "--max-time", "0.03"]) == 1
    assert main(command) == 0
    for name in ("demo-start", "demo-lif-clean"):
        assert (tmp_path / name / "threads.txt").read_text() == "1\n", "two threads for four networks"


def test_networks_trained_in_several_precisions_do_not_share_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "demo", "--out", str(tmp_path / "out"), "--only"]
    assert main([*command, "lif-clean", "--precision", "bf16-mixed", "--runs", str(tmp_path / "one")]) == 0
    assert "Trained in bf16-mixed." in (tmp_path / "out" / "table.md").read_text()
    capsys.readouterr()
    assert main([*command, "homeostatic-clean", "--runs", str(tmp_path / "two")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "demo-lif-clean, trained with --precision bf16-mixed, and now the precision is 32-true" in said
    assert not (tmp_path / "two").exists()


def test_networks_of_before_that_were_measured_in_another_way_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "demo", "--runs", str(tmp_path), "--only"]
    assert main([*command, "lif-clean"]) == 0
    other = (replace(TINY_DEMO.plans[0], samples=10), *TINY_DEMO.plans[1:])
    monkeypatch.setitem(REPRODUCTIONS, "demo", replace(TINY_DEMO, plans=other))
    before = (tmp_path / "demo" / "comparison.json").read_bytes()
    assert main([*command, "lif-fgsm"]) == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "demo" / "comparison.json").read_bytes() == before
    assert not (tmp_path / "demo-lif-fgsm").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("demo --only lif-fgsn", "did you mean 'lif-fgsm'"),
        ("all --only lif-fgsm", "give it with the name of one table"),
        ("demo --only", "--only got nothing"),
        ("all --threads -5", "threads got -5"),
    ],
)
def test_networks_that_no_table_has_are_refused(
    command: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *command.split(), "--runs", str(tmp_path / "runs")]) == 2
    assert said in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "runs").exists()


def test_all_writes_each_table_and_the_papers_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = PlannedEvaluation("smoke", samples=10, threat=DEFAULT_THREAT.with_eps(2 / 255), attacks_only=True)
    plans = (PlannedEvaluation("paper", samples=10, panel_samples=0), weak)
    assert weak.key == "smoke, attacks only at linf:2/255"
    columns = (("clean", "paper", "clean"), ("PGD-7", "paper", "PGD-7"), ("worst case, 2/255", weak.key, "worst"))
    small = replace(TINY_DEMO, grid=TINY_DEMO.grid[1:2], plans=plans, columns=columns)
    monkeypatch.setitem(REPRODUCTIONS, "demo", small)
    monkeypatch.setattr(reproduce_verb, "ALL", ("demo",))
    command = ["reproduce", "all", "--runs", str(tmp_path), "--data-folder", str(tmp_path / "nowhere"), "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    result = ReproductionResult.load(tmp_path / "demo" / "comparison.json")
    assert result.demonstration and printed["demo"]["cells"][0]["experiment"] == result.cells[0].experiment
    measured = result.cells[0].evaluations[weak.key]
    assert measured.threat == "linf:2/255" and "not run" not in (tmp_path / "demo" / "table.md").read_text()
    rows = (tmp_path / "paper.md").read_text()
    assert "74.91" in rows and "LIF, trained with FGSM 2/255" in rows and "n = 10" in rows


def test_all_looks_for_every_data_set_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce_verb, "ALL", ("demo", "nmnist"))
    (tmp_path / "nmnist").mkdir()
    assert main(["reproduce", "all", "--runs", str(tmp_path / "runs"), "--data-folder", str(tmp_path)]) == 2
    assert str(tmp_path / "nmnist") in capsys.readouterr().err
    assert not list(tmp_path.rglob("checkpoints"))


def a_twin() -> Experiment:
    network = ConvNet("4C3-P2-8-10", (1, 28, 28), (0.28,), (0.35,), dropout=0.0, pool_gain=0.25, twin=Twin.RELU)
    small = TINY_DEMO.grid[0]()
    return replace(small, name="a-twin", network=network, start=None, objective=adversarial())


def test_a_twin_and_what_it_is_converted_to_stand_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = (PlannedEvaluation("smoke", samples=10, panel_samples=0, attacks_only=True),)
    columns = (("clean", plans[0].key, "clean"), ("worst case", plans[0].key, "worst"))
    small = replace(
        TINY_DEMO,
        grid=TINY_DEMO.grid[1:2],
        plans=plans,
        columns=columns,
        conversions=Conversions(a_twin, (2, 4), plans),
    )
    monkeypatch.setitem(REPRODUCTIONS, "demo", small)
    command = ["reproduce", "demo", "--runs", str(tmp_path)]
    assert main(command) == 0
    result = ReproductionResult.load(tmp_path / "demo" / "comparison.json")
    assert [cell.neuron for cell in result.cells] == ["LIF", "ANN", "converted, 2 steps", "converted, 4 steps"]
    assert "a-twin" in result.experiments
    measured = [cell.evaluations[plans[0].key] for cell in result.cells[1:]]
    assert [evaluation.model for evaluation in measured] == ["a-twin", "a-twin-converted-2", "a-twin-converted-4"]
    assert len({evaluation.model_sha256 for evaluation in measured}) == 3
    rows = (tmp_path / "demo" / "table.md").read_text()
    assert "converted, 4 steps" in rows and "not run" not in rows
    assert paired_markdown(result).count("| worst case | 0 |") == 6, "each of four networks beside each other"
    figure = against_steps(result)
    assert figure is not None and figure.axes[0].get_legend_handles_labels()[1] == ["clean", "worst case"]
    assert (tmp_path / "demo" / "steps.svg").read_text().startswith("<?xml")
    before = {path: path.read_bytes() for path in tmp_path.rglob("evaluations/*.json")}
    assert main(command) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("evaluations/*.json")} == before


def test_a_twin_of_the_grid_stands_once_beside_what_it_is_converted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = (PlannedEvaluation("smoke", samples=10, panel_samples=0, attacks_only=True),)
    columns = (("worst case", plans[0].key, "worst"),)
    conversions = Conversions(a_twin, (2,), plans)
    small = replace(TINY_DEMO, grid=(TINY_DEMO.grid[1], a_twin), plans=plans, columns=columns, conversions=conversions)
    monkeypatch.setitem(REPRODUCTIONS, "demo", small)
    assert main(["reproduce", "demo", "--runs", str(tmp_path)]) == 0
    result = ReproductionResult.load(tmp_path / "demo" / "comparison.json")
    assert [cell.neuron for cell in result.cells] == ["LIF", "ANN", "converted, 2 steps"]


def test_further_seeds_are_attacked_without_panels_if_the_plan_says_so() -> None:
    once = PlannedEvaluation("standard", further_seeds=FurtherSeeds.ATTACKS_ONLY)
    first_only = PlannedEvaluation("sweep", further_seeds=FurtherSeeds.NONE)
    small = replace(TINY_DEMO, plans=(PlannedEvaluation("paper"), once, first_only))
    assert small.plans_for(first_seed=True) == small.plans
    assert [plan.key for plan in small.plans_for(first_seed=False)] == ["paper", "standard, attacks only"]


@pytest.mark.parametrize(("threads", "blocks"), [(1, 1), (0, None)])
def test_threads_limit_evaluations_too(
    threads: int, blocks: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def stops(*_: Any, **options: Any) -> None:
        seen.append(options["threads"])
        raise ConfigError("enough")

    monkeypatch.setattr(reproduction_pipeline, "stored_or_fresh", stops)
    small = replace(TINY_DEMO, grid=TINY_DEMO.grid[:1])
    monkeypatch.setitem(REPRODUCTIONS, "demo", small)
    assert main(["reproduce", "demo", "--runs", str(tmp_path), "--threads", str(threads)]) == 2
    assert seen == [blocks]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_evaluation_as_it_stops_a_training(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def signalled(*_: Any, deadline: Deadline, **__: Any) -> None:
        os.kill(os.getpid(), number)
        assert deadline.reached, "a block of images is finished and kept before the end"
        raise Interrupted("in an evaluation", deadline)

    monkeypatch.setattr(reproduction_pipeline, "stored_or_fresh", signalled)
    monkeypatch.setitem(REPRODUCTIONS, "demo", replace(TINY_DEMO, grid=TINY_DEMO.grid[:1]))
    assert main(["reproduce", "demo", "--runs", str(tmp_path)]) == 128 + number
    assert "the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["comparison.json", "comparison.lock"])
def test_a_folder_in_the_place_of_a_file_is_noticed_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    assert main(["reproduce", "demo", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is a folder" in said and "--out" in said and not (tmp_path / "runs").exists()


def test_an_unknown_name_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "fashion", "--runs", str(tmp_path / "runs")]) == 2
    assert "fashion-mnist" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_recordings_are_reproduced_without_pictures_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(0, 2, (60, 3, 2, 16, 20))
    np.savez(tmp_path / "events.npz", x=x.astype(np.float32), y=np.arange(60) % 3)
    data = load_dataset(str(tmp_path / "events.npz"))
    monkeypatch.setattr(reproduce_verb, "load_dataset", lambda name, folder: data)
    plans = (PlannedEvaluation("events", samples=6, panel_samples=0, threat=Threat.parse("events:3/1")),)
    columns = (("worst case", plans[0].key, "worst"),)

    def recipe() -> Experiment:
        return with_dataset(TINY_DEMO.grid[1](), data)

    small = replace(TINY_DEMO, grid=(recipe,), plans=plans, columns=columns)
    monkeypatch.setitem(REPRODUCTIONS, "demo", small)
    assert main(["reproduce", "demo", "--runs", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs" / "demo" / "report.html").exists()
