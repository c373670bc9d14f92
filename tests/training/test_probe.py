"""The probe: what withstands it, the epoch it chooses, and the end of a training that collapses."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.estimators import Through
from hosnn.progress import TerminalProgress
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD
from hosnn.robustness.balls import Linf
from hosnn.robustness.losses import margin
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.training import pipeline
from hosnn.training.checkpoint import read_pointer
from hosnn.training.experiment import Experiment
from hosnn.training.log import read_log
from hosnn.training.pipeline import finished_run, run
from hosnn.training.probe import Probe
from tests.training.toy import CLEAN, STEPS_PER_EPOCH, StopAfter, log_lines, position, same_bits

THREAT = Threat(Linf(0.05))
PROBE = Probe((Through(bptt(), PGD(THREAT, steps=2, step_size=0.5)), APGD(THREAT, 3, loss=margin)), images=12)


class Pixels(nn.Module):
    """The two pixels of an image are its logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Tying:
    """Makes both pixels of the images that begin with `first` equal, and remembers how many images it was given."""

    def __init__(self, first: float) -> None:
        self.first, self.given = first, list[int]()

    def __call__(self, model: Any, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        self.given.append(len(x))
        return torch.where(x[..., :1] == self.first, 0.5, x)


def test_withstood_is_right_without_a_tie_after_every_attack() -> None:
    """The second image is tied by the first attack only; the third one from the start, and the fourth one is wrong."""
    x = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.4], [0.1, 0.9]]).view(4, 1, 1, 2)
    y, rng = torch.zeros(4, dtype=torch.int64), SampleRandom(0, torch.arange(4))
    tying, other = Tying(0.8), Tying(0.0)
    assert Probe((other,)).withstood(Pixels(), x, y, rng).tolist() == [True, True, False, False]
    assert Probe((tying, other)).withstood(Pixels(), x, y, rng).tolist() == [True, False, False, False]
    assert (tying.given, other.given) == ([2], [2, 1]), "each attack sees what withstood those before it"


def test_no_attack_is_run_on_what_is_lost_already() -> None:
    attack = Tying(0.5)
    x, y = torch.zeros(3, 1, 1, 2), torch.zeros(3, dtype=torch.int64)
    assert not Probe((attack,)).withstood(Pixels(), x, y, SampleRandom(0, torch.arange(3))).any()
    assert attack.given == []


@pytest.mark.parametrize("wrong", [{"attacks": ()}, {"images": 0}, {"collapse": 0.0}, {"collapse": 1.5}], ids=str)
def test_a_probe_that_cannot_judge_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Probe got"):
        replace(PROBE, **wrong)


def experiment(epochs: int, collapse: float = 0.1) -> Experiment:
    return replace(CLEAN, optim=replace(CLEAN.optim, epochs=epochs), probe=replace(PROBE, images=10, collapse=collapse))


def shares(values: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe finds after each epoch, of 10 images."""
    left = iter(values)

    def withstood(probe: Probe, model: Any, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return torch.arange(len(x)) < round(next(left) * len(x))

    monkeypatch.setattr(Probe, "withstood", withstood)


@pytest.mark.parametrize(
    ("found", "best", "epochs"),
    [
        ((0.2, 0.6, 0.5), 2, 3),
        ((0.6, 0.6, 0.5), 1, 3),
        ((0.1, 0.2, 0.3), 3, 3),
        ((0.5, 0.8, 0.3, 0.9), 2, 3),  # 0.5 below the best one: the end
        ((0.5, 0.7, 0.3, 0.9), 4, 4),  # 0.4 below is no more than chance gives 10 images
        ((0.9, 0.1), 1, 2),
    ],
)
def test_the_probe_chooses_the_epoch_and_ends_a_collapse(
    found: tuple[float, ...],
    best: int,
    epochs: int,
    tmp_path: Path,
    data: Dataset,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares(found, monkeypatch)
    planned = experiment(len(found), collapse=0.15)
    result = run(planned, data, tmp_path, fabric)
    folder = tmp_path / "clean"
    assert result.finished and result.accuracy == found[best - 1] and result.steps == epochs * STEPS_PER_EPOCH
    assert read_pointer(folder / "checkpoints") == (f"step-{result.steps:08d}", f"step-{best * STEPS_PER_EPOCH:08d}")
    assert [line["probe"] for line in log_lines(folder)] == list(found[:epochs])
    assert [line["probe"] for line in read_log(folder)] == list(found[:epochs])
    assert position(folder).get("stopped", False) == (found[epochs - 1] < max(found[:epochs]) - 0.45)
    # From here on it counts as finished: it is neither trained again nor called damaged.
    again = finished_run(planned, data, folder)
    assert again is not None and (again.steps, again.accuracy) == (result.steps, result.accuracy)
    monkeypatch.setattr(pipeline, "fit", lambda *_, **__: pytest.fail("trained again"))
    for resume in (False, True):
        assert run(planned, data, tmp_path, fabric, resume=resume).finished


def test_a_collapse_is_more_than_chance_and_is_told(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe((PGD(THREAT, 1),), collapse=0.1)
    assert probe.has_collapsed(0.7, 0.59, 500) and not probe.has_collapsed(0.7, 0.61, 500)
    assert not probe.has_collapsed(0.7, 0.55, 20) and probe.has_collapsed(0.7, 0.3, 20)
    shares((0.9, 0.1), monkeypatch)
    text = io.StringIO()
    run(experiment(3), data, tmp_path, fabric, progress=TerminalProgress(Console(file=text, width=200)))
    assert "ended after 2 of 3 epochs: the probe fell from 90.00% to 10.00%" in text.getvalue()


def test_a_collapsed_start_is_a_start_like_any_other(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares((0.9, 0.1, 0.5, 0.6, 0.7), monkeypatch)
    start = experiment(3)
    follower = replace(start, name="after", start=start)
    assert run(start, data, tmp_path, fabric).steps == 2 * STEPS_PER_EPOCH
    assert run(follower, data, tmp_path, fabric).finished
    assert len(log_lines(tmp_path / "clean")) == 2 and len(log_lines(tmp_path / "after")) == 3


@pytest.mark.parametrize("stop", [2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1])
def test_a_probed_run_resumes_to_the_same_bits(stop: int, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    planned = replace(CLEAN, probe=PROBE)
    whole = run(planned, data, tmp_path / "whole", fabric)
    assert whole.finished and 0 <= whole.accuracy < 1
    assert not run(planned, data, tmp_path / "parts", fabric, StopAfter(stop)).finished
    assert run(planned, data, tmp_path / "parts", fabric, resume=True).accuracy == whole.accuracy
    same_bits(tmp_path / "whole" / "clean", tmp_path / "parts" / "clean")


def test_the_probe_is_taken_on_a_balanced_choice_of_validation_images(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def withstood(probe: Probe, model: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        assert not any(module.training for module in model.modules())
        seen.append((rng.index.tolist(), y.bincount(minlength=4).tolist()))
        return torch.ones(len(x), dtype=torch.bool)

    monkeypatch.setattr(Probe, "withstood", withstood)
    for name, images, each in (("few", 8, 2), ("more than there are", 500, 4)):
        seen.clear()
        run(replace(CLEAN, probe=replace(PROBE, images=images)), data, tmp_path / name, fabric)
        assert len(seen) == CLEAN.optim.epochs and seen[0] == seen[1]
        assert set(seen[0][0]) <= set(data.validation.index.tolist()) and seen[0][1] == [each] * 4


def test_without_a_probe_nothing_of_it_is_recorded(trained: Path) -> None:
    assert all("probe" not in line for line in log_lines(trained / "clean"))
    assert "stopped" not in position(trained / "clean")
