"""How long and on how much a training goes: learning rate, number of images, and the time that is recorded."""

import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.signature import Signature
from hosnn.training import loop
from hosnn.training.configuration import describe
from hosnn.training.experiment import Experiment, Homeostasis, Optimisation
from hosnn.training.pipeline import finished_run, run
from hosnn.training.schedule import Schedule, learning_rate
from hosnn.training.step import optimiser_step
from hosnn.training.validation import Validation
from tests.training.toy import CLEAN, ROBUST, StopAfter, log_lines, position, same_bits


@pytest.mark.parametrize("schedule", Schedule)
def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nothing(schedule: Schedule) -> None:
    values = [learning_rate(0.2, done, 0.25, schedule) for done in (0.0, 0.125, 0.25, 1.0)]
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.0], abs=1e-12)
    assert learning_rate(0.2, 0.0, 0.0, schedule) == 0.2
    half = learning_rate(0.2, 0.625, 0.25, schedule)
    assert half == pytest.approx(0.1), "half-way down, a cosine and a line meet"
    quarter = learning_rate(0.2, 0.4375, 0.25, schedule)
    expected = {Schedule.COSINE: 0.1 * (1 + math.cos(math.pi / 4)), Schedule.LINEAR: 0.15}
    assert quarter == pytest.approx(expected[schedule])


def test_a_line_after_a_warm_up_is_torchs_one_cycle() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    total, warmup = 2000, 0.3
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        0.2,
        total,
        pct_start=warmup,
        anneal_strategy="linear",
        div_factor=1e9,
        final_div_factor=1e9,
        cycle_momentum=False,
    )
    for step in range(total):
        assert learning_rate(0.2, step / total, warmup, Schedule.LINEAR) == pytest.approx(
            cycle.get_last_lr()[0], abs=1e-3
        )
        optimiser.step()
        cycle.step() if step < total - 1 else None


def test_training_follows_the_schedule(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    optim = replace(CLEAN.optim, epochs=4, warmup=0.5, schedule=Schedule.LINEAR)
    run(replace(CLEAN, optim=optim), data, tmp_path, fabric)
    rates = [line["lr"] for line in log_lines(tmp_path / "clean")]  # of the last step of each epoch: 2, 5, 8, 11 of 12
    assert rates == pytest.approx([0.1 * share for share in (2 / 6, 5 / 6, 4 / 6, 1 / 6)])


@pytest.mark.parametrize("warmup", [-0.1, 1.0, float("nan")])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup: float) -> None:
    with pytest.raises(ConfigError, match="warmup"):
        Optimisation(warmup=warmup)


NEW: dict[str, Any] = {
    "images": {"images": 32},
    "warm-up": {"optim": replace(CLEAN.optim, warmup=0.1)},
    "schedule": {"optim": replace(CLEAN.optim, schedule=Schedule.LINEAR)},
}


@pytest.mark.parametrize("name", NEW)
def test_what_is_not_used_is_no_part_of_an_identity(name: str) -> None:
    """Experiments of before keep their identities; with another value they get others."""
    words = str(describe(CLEAN))
    assert not any(word in words for word in ("'images'", "'probe'", "'warmup'", "'schedule'", "'smoothing'"))
    assert replace(CLEAN, **NEW[name]).identity != CLEAN.identity


def test_fewer_images_are_a_balanced_choice_that_the_signature_is_recorded_on_too(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 of 48 images in batches of 16: a step per epoch; the start, which asks for none, sees all of them."""
    seen = defaultdict[str, set[int]](set)
    real = optimiser_step

    def watching(*arguments: Any) -> float:
        experiment, split, rows = arguments[3:6]
        seen[experiment.name] |= set(split.index[rows].tolist())
        return real(*arguments)

    monkeypatch.setattr(loop, "optimiser_step", watching)
    few = replace(ROBUST, images=16)
    result = run(few, data, tmp_path, fabric)
    assert result.steps == 2 and len(seen["robust"]) == 16 and len(seen["clean"]) == 48
    rows = [data.train.index.tolist().index(number) for number in seen["robust"]]
    assert data.train.labels[rows].bincount().tolist() == [4] * 4
    assert seen["robust"] == set(data.train.subset(16).index.tolist())
    assert Signature.load(tmp_path / "clean" / "signature.safetensors").samples == 16
    assert finished_run(few, data, tmp_path / "robust") is not None
    run(replace(few, name="again"), data, tmp_path, fabric)
    assert seen["again"] == seen["robust"]


def test_fewer_images_resume_to_the_same_bits(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    few = replace(CLEAN, images=32, optim=replace(CLEAN.optim, epochs=3))
    assert run(few, data, tmp_path / "whole", fabric).steps == 6
    assert not run(few, data, tmp_path / "parts", fabric, StopAfter(3)).finished
    assert run(few, data, tmp_path / "parts", fabric, resume=True).finished
    same_bits(tmp_path / "whole" / "clean", tmp_path / "parts" / "clean")


@pytest.mark.parametrize("images", [49, -1])
def test_more_images_than_there_are_are_refused(images: int, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    with pytest.raises(ConfigError, match=str(images)):
        run(replace(CLEAN, images=images), data, tmp_path, fabric)


def test_the_time_of_the_last_validation_counts(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a run that is stopped and resumed, and for one that is found finished."""

    def slow(*_: Any) -> Validation:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        return Validation(0.5)

    monkeypatch.setattr(loop, "validate", slow)
    one_epoch: Experiment = replace(CLEAN, optim=replace(CLEAN.optim, epochs=1))
    result = run(one_epoch, data, tmp_path, fabric)
    assert result.cpu_seconds >= 0.2 and result.seconds >= 0.2
    found = finished_run(one_epoch, data, tmp_path / "clean")
    assert found is not None and (found.cpu_seconds, found.seconds) == (result.cpu_seconds, result.seconds)
    two = replace(CLEAN, name="two")
    first = run(two, data, tmp_path, fabric, StopAfter(4))
    assert first.cpu_seconds >= 0.2
    assert run(two, data, tmp_path, fabric, resume=True).cpu_seconds >= first.cpu_seconds + 0.2
    assert position(tmp_path / "two")["finished"]


def test_homeostasis_without_a_signature_of_its_own_number_of_images_is_recorded_anew(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    run(ROBUST, data, tmp_path, fabric)
    path = tmp_path / "clean" / "signature.safetensors"
    assert Signature.load(path).samples == 48
    run(replace(ROBUST, name="few", images=16, homeostasis=Homeostasis(adaptation=0.1)), data, tmp_path, fabric)
    assert Signature.load(path).samples == 16
