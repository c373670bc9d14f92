"""The control for homeostasis, LIF with learned static thresholds, trains and resumes as TA-LIF does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hosnn.nn.neurons import TALIF, Extrapolation, hidden_neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.training.checkpoint import load
from hosnn.training.experiment import Homeostasis, LearnedThresholds
from hosnn.training.pipeline import run
from tests.training.toy import ROBUST, StopAfter, cpu, same_bits, tensors, toy_data

LEARNED = replace(ROBUST, name="learned", homeostasis=LearnedThresholds())


def test_every_threshold_learns_and_is_given_back_by_the_checkpoint(tmp_path: Path) -> None:
    folder = run(LEARNED, toy_data(), tmp_path, cpu()).folder
    layers = hidden_neurons(load(folder, "last").network)
    assert layers and all(isinstance(layer, ThresholdLIF) and layer.learns for layer in layers.values())
    found = tensors(folder)
    moved = [(found[f"{name}.threshold"] != layer.dynamics.threshold).float().mean() for name, layer in layers.items()]
    assert min(moved) > 0.5
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_what_starts_from_learned_thresholds_goes_on_learning_them(tmp_path: Path) -> None:
    """Its own recipe makes nothing homeostatic: the layers themselves tell what they are."""
    further = replace(LEARNED, name="further", start=LEARNED, homeostasis=None)
    whole = run(further, toy_data(), tmp_path / "whole", cpu())
    layers = hidden_neurons(load(whole.folder).network).values()
    assert all(isinstance(layer, ThresholdLIF) and layer.learns for layer in layers)
    run(LEARNED, toy_data(), tmp_path / "cut", cpu())
    assert not run(further, toy_data(), tmp_path / "cut", cpu(), StopAfter(4)).finished
    same_bits(whole.folder, run(further, toy_data(), tmp_path / "cut", cpu(), resume=True).folder)


def test_what_a_signature_means_beyond_its_end_is_handed_on(tmp_path: Path) -> None:
    held = replace(ROBUST, name="held", homeostasis=Homeostasis(0.2, beyond=Extrapolation.HOLD_LAST))
    further = replace(held, name="further", start=held, homeostasis=None)
    layers = hidden_neurons(load(run(further, toy_data(), tmp_path, cpu()).folder).network).values()
    assert all(isinstance(layer, TALIF) and layer.beyond is Extrapolation.HOLD_LAST for layer in layers)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_stopped_and_resumed_gives_the_same_bits(tmp_path: Path, steps: int) -> None:
    whole = run(LEARNED, toy_data(), tmp_path / "whole", cpu())
    run(ROBUST.start or ROBUST, toy_data(), tmp_path / "cut", cpu())
    assert not run(LEARNED, toy_data(), tmp_path / "cut", cpu(), StopAfter(steps)).finished
    resumed = run(LEARNED, toy_data(), tmp_path / "cut", cpu(), resume=True)
    assert resumed.finished
    same_bits(whole.folder, resumed.folder)
