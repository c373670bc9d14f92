"""One small file of every kind that hosnn reads, and the function that reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hosnn.evaluation.journal import Journal, journal_path
from hosnn.nn.lenet import LeNet
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import ReproductionResult
from hosnn.signature import Signature, calibrate, homeostatic
from hosnn.training.checkpoint import TrainingState, config_of, load, load_state, read_pointer, save_generation
from hosnn.training.configuration import describe
from hosnn.training.log import RunLog, read_log
from hosnn.training.spiking_layers import describe_homeostasis
from tests.evaluation.synthetic import comparison, evaluation, rich

NETWORK = LeNet(channels=(1, 2), hidden=4, classes=3, image=(1, 16, 16))
POSITION = {"step": 3, "finished": False, "best": 0.5, "loss": 1.0, "seconds": 2.0, "ranks": 1, "precision": "32-true"}
IDENTITY = {"protocol": "smoke", "seed": 0}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    write  write one into a folder; returns its path
    read   read what matters in it, as a value to compare
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
    return result.clean_accuracy, result.worst_case, [result.accuracy(row.attack) for row in result.rows]


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
        log.epoch(epoch, 3 * epoch, 0.5, 0.25, 1e-3)
    return folder / "log.jsonl"


def _network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lif = NETWORK.build().eval()
        return homeostatic(lif, calibrate(lif, [torch.rand(4, *NETWORK.image)]), 0.1)


def _run(folder: Path) -> Path:
    network = _network()
    config = config_of(describe(NETWORK), describe_homeostasis(network), {"name": "toy", "seed": 1})
    state = TrainingState({"0.exp_avg": torch.arange(3.0)}, POSITION)
    pointer = save_generation(folder / "checkpoints", network, config, state, None)
    return folder / "checkpoints" / pointer.last


def _logits(path: Path) -> Any:
    network = load(path.parent)
    with torch.no_grad():
        return network.network(torch.full((1, *NETWORK.image), 0.5)).shape


def _signature(folder: Path) -> Path:
    network = NETWORK.build().eval()
    calibrate(network, [torch.rand(4, *NETWORK.image)], dataset="toy").save(folder / "signature.safetensors")
    return folder / "signature.safetensors"


KINDS = {
    "result": Kind(_result, _accuracies),
    "small result": Kind(_small_result, _accuracies),
    "comparison": Kind(_comparison, lambda path: len(ReproductionResult.load(path).cells)),
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
        lambda path: list(load_state(path.parent.parent, path.parent.name).tensors),
    ),
    "pointer": Kind(lambda folder: _run(folder).parent / "current.json", lambda path: read_pointer(path.parent)),
    "signature": Kind(_signature, lambda path: Signature.load(path).samples),
}
