"""One small file of every kind that hosnn reads, and the function that reads it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hosnn.cluster.record import EvaluationSummary, Sweep, TrialRecord, TrialResult
from hosnn.cluster.tables import markdown_sweep
from hosnn.cluster.work import training_machine
from hosnn.evaluation.journal import Journal, journal_path
from hosnn.files import write_json
from hosnn.nn.lenet import LeNet
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.report.inspection_tables import inspection_tables
from hosnn.report.reproduction_tables import reproduction_markdown
from hosnn.results.evaluation import Evaluation
from hosnn.results.inspection import Inspection
from hosnn.results.reproduction import ReproductionResult
from hosnn.signature import Signature, calibrate, homeostatic
from hosnn.training.checkpoint import TrainingState, config_of, load, load_state, read_pointer, save_generation
from hosnn.training.configuration import describe
from hosnn.training.log import RunLog, read_log
from hosnn.training.optimiser_state import ENTRIES, restore_optimiser
from hosnn.training.spiking_layers import describe_homeostasis
from hosnn.training.validation import Validation
from tests.evaluation.synthetic import comparison, evaluation, rich
from tests.report.inspected import inspected
from tests.training.toy import CLEAN

NETWORK = LeNet(channels=(1, 2), hidden=4, classes=3, image=(1, 16, 16))
POSITION = {"step": 3, "finished": False, "best": 0.5, "loss": 1.0, "seconds": 2.0, "ranks": 1, "precision": "32-true"}
IDENTITY = {"protocol": "smoke", "seed": 0}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    write  write one into a folder; returns its path
    read   read what matters in it, as a value to compare, and make the tables that are made from it
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]


def _result(folder: Path) -> Path:
    rich().save(folder / "result.json")
    return folder / "result.json"


def _comparison(folder: Path) -> Path:
    comparison(samples=1000).save(folder / "comparison.json")
    return folder / "comparison.json"


def _small_result(folder: Path) -> Path:
    evaluation("smoke", 12, 9, {"FGSM": 6, "PGD-20": 3}, (8, 7, 5, 4, 2, 1)).save(folder / "small.json")
    return folder / "small.json"


def _accuracies(path: Path) -> Any:
    result = Evaluation.load(path)
    markdown_evaluation(result)
    return result.clean_accuracy, result.worst_case, [result.accuracy(row.attack) for row in result.rows]


def _inspection(folder: Path) -> Path:
    inspected()[0].save(folder / "inspection.json")
    return folder / "inspection.json"


def _sweep(folder: Path) -> Path:
    """Of two trials, one of them finished."""
    computed: dict[str, Any] = {"versions": {"torch": "2"}, "machine": {"processor": "x", "cores": 2}}
    figures = EvaluationSummary(
        protocol="smoke",
        threat="linf:8/255",
        samples=12,
        clean=0.5,
        worst=0.25,
        accuracy={"FGSM": 0.25},
        verdict="warn",
        seconds=1.0,
        file="evaluations/smoke.json",
        **computed,
    )
    result = TrialResult(validation=0.5, steps=6, seconds=1.0, evaluation=figures, **computed)
    trial = TrialRecord(recipe="a:b", overrides=("optim.lr=1",), seed=0, name="b", identity="0" * 64, folder="runs/b")
    sweep = Sweep(
        recipes=("a:b",),
        settings=(),
        grid=("optim.lr=1,2",),
        seeds=(0,),
        protocol="smoke",
        threat="linf:8/255",
        samples=12,
        trials=(replace(trial, state="finished", result=result), replace(trial, state="failed", error="why")),
    )
    sweep.save(folder / "sweep.json")
    return folder / "sweep.json"


def _machine(folder: Path) -> Path:
    write_json(folder / "machine.json", {"identity": CLEAN.identity, "machine": {"processor": "x", "cores": 2}})
    return folder / "machine.json"


def _journal(folder: Path) -> Path:
    path = journal_path(folder, "smoke")
    journal = Journal(path, IDENTITY)
    for block in range(4):
        outcome = {"predictions": [block, 2, -1], "tied": [1], "seconds": 0.5, "forward": 60, "backward": 60}
        journal.put("PGD", block, outcome)
    return path


def _blocks(path: Path) -> Any:
    journal = Journal(path, IDENTITY)
    blocks = [journal.get("PGD", block, 3) for block in range(4)]
    return [None if block is None else (block["predictions"], block["tied"]) for block in blocks]


def _log(folder: Path) -> Path:
    log = RunLog(folder, 0)
    for epoch in range(1, 4):
        log.epoch(epoch, 3 * epoch, 0.5, Validation(0.25), 1e-3)
    return folder / "log.jsonl"


def _network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lif = NETWORK.build().eval()
        return homeostatic(lif, calibrate(lif, [torch.rand(4, *NETWORK.image)]), 0.1)


def _run(folder: Path) -> Path:
    network = _network()
    config = config_of(describe(NETWORK), describe_homeostasis(network), {"name": "toy", "seed": 1})
    state = TrainingState(
        {f"0.{name}": torch.arange(3.0) for name in ENTRIES} | {"0.step": torch.tensor(3.0)}, POSITION
    )
    pointer = save_generation(folder / "checkpoints", network, config, state, None)
    return folder / "checkpoints" / pointer.last


def _logits(path: Path) -> Any:
    network = load(path.parent)
    with torch.no_grad():
        return network.network(torch.full((1, *NETWORK.image), 0.5)).shape


def _restored(path: Path) -> Any:
    optimiser = torch.optim.AdamW([torch.zeros(3, requires_grad=True)])
    restore_optimiser(optimiser, load_state(path.parent.parent, path.parent.name).tensors, path)
    return {name: value.shape for name, value in optimiser.state_dict()["state"][0].items()}


def _signature(folder: Path) -> Path:
    network = NETWORK.build().eval()
    calibrate(network, [torch.rand(4, *NETWORK.image)], dataset="toy").save(folder / "signature.safetensors")
    return folder / "signature.safetensors"


KINDS = {
    "result": Kind(_result, _accuracies),
    "small result": Kind(_small_result, _accuracies),
    "comparison": Kind(_comparison, lambda path: len(reproduction_markdown(ReproductionResult.load(path)))),
    "inspection": Kind(_inspection, lambda path: len(inspection_tables(Inspection.load(path)))),
    "sweep": Kind(_sweep, lambda path: len(markdown_sweep(Sweep.load(path)))),
    "machine": Kind(_machine, lambda path: len(training_machine(path.parent, CLEAN))),
    "journal": Kind(_journal, _blocks),
    "log": Kind(_log, lambda path: [epoch["step"] for epoch in read_log(path.parent)]),
    "config": Kind(lambda folder: _run(folder) / "config.json", _logits),
    "weights": Kind(lambda folder: _run(folder) / "model.safetensors", _logits),
    "position": Kind(
        lambda folder: _run(folder) / "training.json",
        lambda path: load_state(path.parent.parent, path.parent.name).position["step"],
    ),
    "optimiser": Kind(
        lambda folder: _run(folder) / "training.safetensors",
        _restored,
    ),
    "pointer": Kind(lambda folder: _run(folder).parent / "current.json", lambda path: read_pointer(path.parent)),
    "signature": Kind(_signature, lambda path: Signature.load(path).samples),
}
