"""A run folder belongs to one process, one precision and one network; time is up in a calibration too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hosnn.errors import CheckpointError, TrainingError
from hosnn.training import pipeline
from hosnn.training.averaging import WeightAverage, own_weights
from hosnn.training.optimiser_state import optimiser_state, restore_optimiser
from hosnn.training.pipeline import run
from tests.training.toy import CLEAN, NETWORK, ROBUST, StopAfter, cpu, same_bits, toy_data, worked_in


def test_a_folder_that_another_process_works_in_is_refused_at_once(tmp_path: Path) -> None:
    with worked_in(tmp_path / "clean") as other:
        with pytest.raises(CheckpointError, match=rf"another process \({other} on .*\) is using .*clean; wait"):
            run(CLEAN, toy_data(), tmp_path, cpu())
    assert run(CLEAN, toy_data(), tmp_path, cpu()).finished


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clean").write_text("precious")
    with pytest.raises(CheckpointError, match=r"cannot use the folder .*clean"):
        run(CLEAN, toy_data(), tmp_path, cpu())
    assert (tmp_path / "clean").read_text() == "precious"


def test_a_run_goes_on_in_the_precision_it_was_begun_in(tmp_path: Path) -> None:
    run(CLEAN, toy_data(), tmp_path, cpu("bf16-mixed"), StopAfter(2))
    with pytest.raises(TrainingError, match="trained with --precision bf16-mixed, this is 32-true"):
        run(CLEAN, toy_data(), tmp_path, cpu(), resume=True)
    assert run(CLEAN, toy_data(), tmp_path, cpu("bf16-mixed"), resume=True).finished


def test_a_finished_run_does_not_stand_for_one_in_another_precision(tmp_path: Path) -> None:
    run(CLEAN, toy_data(), tmp_path, cpu())
    with pytest.raises(TrainingError, match="trained with --precision 32-true, this is bf16-mixed"):
        run(CLEAN, toy_data(), tmp_path, cpu("bf16-mixed"))
    with pytest.raises(TrainingError, match="trained with --precision 32-true"):  # nor may it be started from
        run(ROBUST, toy_data(), tmp_path, cpu("bf16-mixed"))


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_time_is_up_while_a_signature_is_recorded(tmp_path: Path, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CALIBRATION_BATCH", 20)  # three blocks
    whole = run(ROBUST, toy_data(), tmp_path / "whole", cpu())
    run(CLEAN, toy_data(), tmp_path / "cut", cpu())
    stopped = run(ROBUST, toy_data(), tmp_path / "cut", cpu(), StopAfter(asked))
    assert not stopped.finished and stopped.steps == 0
    assert not (tmp_path / "cut" / "clean" / "signature.safetensors").exists()
    same_bits(whole.folder, run(ROBUST, toy_data(), tmp_path / "cut", cpu(), resume=True).folder)


STATE = {"0.step": torch.tensor(4.0), "0.exp_avg": torch.ones(3), "0.exp_avg_sq": torch.ones(3)}


def test_the_state_of_an_optimiser_of_other_parameters_is_refused(tmp_path: Path) -> None:
    optimiser = torch.optim.AdamW([torch.zeros(3, requires_grad=True)])
    for name, value in {
        "0.exp_avg": torch.zeros(4),
        "0.exp_avg_sq": torch.tensor(0.0),
        "0.step": torch.zeros(3),
        "0.exp_arg": torch.zeros(3),
        "1.exp_avg": torch.zeros(3),
        "²0.exp_avg": torch.zeros(3),
    }.items():
        with pytest.raises(CheckpointError, match=r"of parameter .*, which this network does not have"):
            restore_optimiser(optimiser, STATE | {name: value}, tmp_path)
    with pytest.raises(CheckpointError, match="which this network does not have"):
        restore_optimiser(optimiser, STATE | {"0.exp_avg": torch.zeros(3, dtype=torch.int64)}, tmp_path)
    for name in STATE:
        with pytest.raises(CheckpointError, match=rf"lacks {name[2:]} of parameter 0"):
            restore_optimiser(optimiser, {key: value for key, value in STATE.items() if key != name}, tmp_path)
    two = torch.optim.AdamW([torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)])
    with pytest.raises(CheckpointError, match="lacks the optimiser's state of parameters 1 of 2"):
        restore_optimiser(two, STATE, tmp_path)
    restore_optimiser(two, {}, tmp_path)
    restore_optimiser(optimiser, STATE, tmp_path)
    assert torch.equal(optimiser.state_dict()["state"][0]["exp_avg"], torch.ones(3))


def test_damaged_weights_beside_averaged_ones_are_refused(tmp_path: Path) -> None:
    network = NETWORK.build()
    averaged, own = WeightAverage(network, 0.9), own_weights(network)
    name = next(iter(own))
    for damaged in (
        {other: tensor for other, tensor in own.items() if other != name},
        own | {name: own[name][:1]},
        own | {name: own[name].long()},
    ):
        with pytest.raises(CheckpointError):
            averaged.restore(network, damaged, tmp_path)
    averaged.restore(network, own, tmp_path)


def test_a_start_is_not_trained_where_its_recipe_has_no_time(tmp_path: Path) -> None:
    stopped = run(replace(ROBUST, name="later"), toy_data(), tmp_path, cpu(), StopAfter(1))
    assert not stopped.finished and stopped.folder == tmp_path / "later"


def test_a_parameter_that_never_had_a_gradient_has_no_state_and_resumes(tmp_path: Path) -> None:
    """k through an estimator that does not see thresholds."""

    def optimiser() -> torch.optim.AdamW:
        return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))])

    begun, resumed = optimiser(), optimiser()
    begun.param_groups[0]["params"][0].grad = torch.ones(2)
    begun.step()
    saved = optimiser_state(begun)
    assert "1.none" in saved
    restore_optimiser(resumed, saved, tmp_path)
    assert set(resumed.state_dict()["state"]) == {0}
    with pytest.raises(CheckpointError, match="lacks the optimiser's state of parameters 1"):
        restore_optimiser(optimiser(), {name: value for name, value in saved.items() if name != "1.none"}, tmp_path)
