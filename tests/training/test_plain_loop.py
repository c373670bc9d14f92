"""The training loop against the twenty lines it stands for, and what a run records."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.training import loop
from hosnn.training.checkpoint import load, read_pointer
from hosnn.training.experiment import Experiment
from hosnn.training.log import read_log
from hosnn.training.objectives import Adversarial
from hosnn.training.pipeline import finished_run, run
from hosnn.training.step import optimiser_step
from tests.training.toy import CLEAN, ROBUST, STEPS_PER_EPOCH, StopAfter, same_bits, tensors, toy_data

TWENTY = replace(CLEAN, name="twenty", optim=replace(CLEAN.optim, epochs=7, lr=1e-3))


def test_twenty_seeded_steps_lose_bit_for_bit_what_a_plain_loop_loses(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    run(TWENTY, data, tmp_path, fabric)
    optim = TWENTY.optim
    torch.manual_seed(TWENTY.seed)
    network = TWENTY.network.build()
    optimiser = torch.optim.AdamW(network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
    total, means = STEPS_PER_EPOCH * optim.epochs, [0.0] * optim.epochs
    assert total >= 20
    for step in range(total):
        epoch, within = divmod(step, STEPS_PER_EPOCH)
        keys = SampleRandom(0, data.train.index).fold("order", epoch).uniform(torch.empty(48, 1, dtype=torch.double))
        rows = keys[:, 0].argsort(stable=True)[16 * within : 16 * within + 16]
        x, y = data.train.batch(rows)
        torch.manual_seed(SampleRandom(0, data.train.index[rows]).fold("training", step).seed)
        loss = TWENTY.objective.loss(network.train(), x, y).mean()
        optimiser.param_groups[0]["lr"] = optim.lr * (1 + math.cos(math.pi * step / total)) / 2
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), optim.clip)
        optimiser.step()
        means[epoch] += (loss.item() - means[epoch]) / (within + 1)
    assert [entry["loss"] for entry in read_log(tmp_path / "twenty")] == means
    last = tensors(tmp_path / "twenty")
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, last[name]), name


def test_a_long_epoch_is_saved_on_the_way(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(CLEAN, data, tmp_path / "whole", fabric)
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0.0)
    real, at = optimiser_step, []

    def dies_in_the_second_epoch(*arguments: object) -> float:
        at.append(arguments)
        if len(at) == STEPS_PER_EPOCH + 3:
            raise MemoryError("killed")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "optimiser_step", dies_in_the_second_epoch)
    with pytest.raises(MemoryError):
        run(CLEAN, data, tmp_path / "killed", fabric)
    pointer = read_pointer(tmp_path / "killed" / "clean" / "checkpoints")
    assert pointer is not None
    assert pointer.last == f"step-{STEPS_PER_EPOCH + 2:08d}"
    monkeypatch.setattr(loop, "optimiser_step", real)
    run(CLEAN, data, tmp_path / "killed", fabric, resume=True)
    same_bits(tmp_path / "killed" / "clean", tmp_path / "whole" / "clean")


def test_where_a_network_came_from_survives_a_resume(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(CLEAN, data, tmp_path, fabric)
    run(ROBUST, data, tmp_path, fabric, StopAfter(2))
    before = load(tmp_path / "robust").config["provenance"]
    assert before["start"] == CLEAN.identity
    assert before["signature_samples"] == "48"
    run(ROBUST, data, tmp_path, fabric, resume=True)
    assert load(tmp_path / "robust").config["provenance"] == before


def test_a_run_on_other_images_of_the_same_name_does_not_count_as_finished(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    run(CLEAN, data, tmp_path, fabric)
    assert finished_run(CLEAN, data, tmp_path / "clean") is not None
    assert finished_run(CLEAN, toy_data(seed=1), tmp_path / "clean") is None


def test_the_log_reads_back(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(CLEAN, data, tmp_path, fabric)
    log = read_log(tmp_path / "clean")
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert read_log(tmp_path / "nowhere") == []


def test_tensorboard_reads_the_same_figures_once_after_a_resume(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(CLEAN, data, tmp_path, fabric, StopAfter(STEPS_PER_EPOCH + 1))
    run(CLEAN, data, tmp_path, fabric, resume=True)
    events = EventAccumulator(str(tmp_path / "clean" / "tensorboard"))
    events.Reload()
    for tag in ("loss", "validation_accuracy", "lr"):
        written = [(entry["step"], pytest.approx(entry[tag])) for entry in read_log(tmp_path / "clean")]
        assert [(event.step, event.value) for event in events.Scalars(tag)] == written


def test_an_experiment_with_a_nameless_function_has_no_identity() -> None:
    objective = ROBUST.objective
    assert isinstance(objective, Adversarial)
    nameless: Experiment = replace(
        ROBUST,
        objective=replace(objective, attack=replace(objective.attack, loss=lambda scores, y: scores[:, 0])),  # type: ignore[type-var]
    )
    with pytest.raises(ConfigError, match="lambda"):
        _ = nameless.identity
