"""Training: the same bits however often it is interrupted, the best epoch by validation, and errors that help."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from hosnn.data import Dataset
from hosnn.data.augment import RandomCrop
from hosnn.deadline import Deadline, stopping
from hosnn.errors import CheckpointError, ConfigError, TrainingError
from hosnn.estimators import OnFrames, OnTraces, Through, TraceCrossEntropy
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import TALIF, constrain_, neurons
from hosnn.progress import TerminalProgress
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import Threat
from hosnn.runtime import Precision
from hosnn.signature import calibrate
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.checkpoint import load, read_pointer
from hosnn.training.configuration import describe
from hosnn.training.experiment import BatchStatistics, Experiment, Homeostasis, Optimisation
from hosnn.training.loop import TrainingOutcome, fit
from hosnn.training.objectives import Adversarial, Clean, CrossEntropy, VanRossum
from hosnn.training.pipeline import run
from hosnn.training.validation import Validation
from tests.training.toy import (
    CLEAN,
    NETWORK,
    ROBUST,
    STEPS_PER_EPOCH,
    StopAfter,
    cpu,
    log_lines,
    longer,
    position,
    same_bits,
    tensors,
    toy_data,
)

ROOT = Path(__file__).parents[2]
THREAT = Threat(Linf(0.05))


def fresh(experiment: Experiment = CLEAN) -> SpikingNetwork:
    torch.manual_seed(experiment.seed)
    return experiment.network.build()


def train(
    folder: Path, data: Dataset, fabric: Fabric, experiment: Experiment = CLEAN, **options: Any
) -> TrainingOutcome:
    return fit(fresh(experiment), experiment, data, folder, fabric, **options)


def test_same_seed_same_weights_bit_for_bit(trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    torch.manual_seed(123)
    torch.rand(7)  # what went before in the process must not matter
    run(ROBUST, data, tmp_path, fabric)
    for name in ("clean", "robust"):
        same_bits(trained / name, tmp_path / name)


def test_another_seed_gives_other_weights(trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(replace(CLEAN, seed=1), data, tmp_path, fabric)
    mine, other = tensors(trained / "clean"), tensors(tmp_path / "clean")
    assert not torch.equal(mine["body.conv1.0.weight"], other["body.conv1.0.weight"])


def test_training_learns(trained: Path, data: Dataset) -> None:
    for name in ("clean", "robust"):
        first, last = log_lines(trained / name)
        assert last["loss"] < first["loss"] and last["validation_accuracy"] > 0.5
    network = load(trained / "robust").network
    rates = [layer.adaptation for layer in neurons(network).values() if isinstance(layer, TALIF)]
    assert len(rates) == 3 and all(not torch.equal(k, torch.full_like(k, 0.2)) for k in rates), "k learns too"


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_stopped_and_resumed_gives_the_same_bits(
    stop: int, trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    """At any step of the clean start or of the homeostatic run; every part (order, dropout, attack, optimiser, k)."""
    started = run(CLEAN, data, tmp_path, fabric, StopAfter(stop))
    assert not started.finished and started.steps == stop
    assert run(CLEAN, data, tmp_path, fabric, resume=True).finished
    stopped = run(ROBUST, data, tmp_path, fabric, StopAfter(stop + 1))  # once while the signature is recorded
    assert not stopped.finished and position(tmp_path / "robust")["step"] == stop
    assert run(ROBUST, data, tmp_path, fabric, resume=True).finished
    for name in ("clean", "robust"):
        same_bits(trained / name, tmp_path / name)


def test_a_run_stopped_after_every_step_gives_the_same_bits(
    trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    sessions = 1
    while not run(ROBUST, data, tmp_path, fabric, StopAfter(1), resume=True).finished:
        sessions += 1
        assert sessions < 50
    for name in ("clean", "robust"):
        same_bits(trained / name, tmp_path / name)


def test_resuming_takes_a_freshly_built_network_too(
    trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    """`fit` puts the saved weights into whatever network of this experiment it is given, k included."""
    run(ROBUST, data, tmp_path, fabric, StopAfter(8))
    fit(fresh(ROBUST), ROBUST, data, tmp_path / "robust", fabric, resume=True)
    same_bits(trained / "robust", tmp_path / "robust")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_every_other_precision_trains_and_resumes_to_the_same_bits(
    precision: Precision, tmp_path: Path, data: Dataset
) -> None:
    fabric = cpu(precision)
    assert run(ROBUST, data, tmp_path / "whole", fabric).finished
    while not run(ROBUST, data, tmp_path / "parts", fabric, StopAfter(4), resume=True).finished:
        pass
    for name in ("clean", "robust"):
        same_bits(tmp_path / "whole" / name, tmp_path / "parts" / name)


@pytest.mark.parametrize("objective", [CLEAN.objective, ROBUST.objective], ids=["clean", "adversarial"])
def test_bfloat16_is_what_convolutions_are_computed_in(
    objective: Any, tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While crafting and while training; validation is in float32, and images are never rounded."""
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    pixels = set[torch.dtype]()
    network = fresh()
    network.register_forward_pre_hook(lambda module, given: pixels.add(given[0].dtype))
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda module, given, out: seen[module.training].add(out.dtype))
    fit(network, replace(CLEAN, objective=objective), data, tmp_path, cpu("bf16-mixed"))
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}} and pixels <= {torch.float32}
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_averaged_weights_are_what_is_validated_and_saved(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """w' <- 0.7 w' + 0.3 w after every step, from the first step's weights; stopping anywhere changes no bit."""
    experiment, name = replace(CLEAN, optim=replace(CLEAN.optim, average=0.7)), "body.conv1.0.weight"
    steps: list[Tensor] = []

    def watching(network: nn.Module) -> None:
        steps.append(network.state_dict()[name].clone())

    with monkeypatch.context() as patch:
        patch.setattr("hosnn.training.step.constrain_", watching)
        assert train(tmp_path / "whole", data, fabric, experiment).finished
    expected = steps[0]
    for weights in steps[1:]:
        expected = 0.7 * expected + 0.3 * weights
    found = tensors(tmp_path / "whole")
    torch.testing.assert_close(found[name], expected)
    assert torch.equal(found[f"weights.{name}"], steps[-1])
    assert torch.equal(load(tmp_path / "whole", "last").network.state_dict()[name], found[name])
    while not train(tmp_path / "parts", data, fabric, experiment, deadline=StopAfter(2), resume=True).finished:
        pass
    same_bits(tmp_path / "whole", tmp_path / "parts")


def test_a_signature_is_recorded_once_for_all_that_start_from_a_network(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[str] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        recorded.append(options["dataset"])
        return calibrate(*arguments, **options)

    monkeypatch.setattr("hosnn.training.pipeline.calibrate", counting)
    run(ROBUST, data, tmp_path, fabric)
    run(replace(ROBUST, name="again", seed=1, start=CLEAN), data, tmp_path, fabric)
    assert recorded == ["toy (unverified) (train)"]
    path = tmp_path / "clean" / "signature.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    run(replace(ROBUST, name="damaged"), data, tmp_path, fabric)
    assert len(recorded) == 2, "a damaged file is recorded anew"
    other = replace(CLEAN, name="other", seed=2)
    run(replace(ROBUST, name="from-other", start=other), data, tmp_path, fabric)
    path.write_bytes((tmp_path / "other" / "signature.safetensors").read_bytes())
    run(replace(ROBUST, name="foreign"), data, tmp_path, fabric)
    assert len(recorded) == 4, "that of another network is not taken"
    signatures = [load(tmp_path / name, "last").network.state_dict() for name in ("robust", "damaged", "foreign")]
    for name in ("body.neurons1.signature", "body.neurons3.signature"):
        assert torch.equal(signatures[0][name], signatures[1][name])
        assert torch.equal(signatures[0][name], signatures[2][name])


def test_augmented_images_are_those_that_the_attack_starts_from(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    """Validation sees images as they are; another epoch sees other ones, a resumed run the same."""
    experiment = replace(ROBUST, name="augmented", start=None, homeostasis=None, augmentation=RandomCrop(4))
    assert train(tmp_path / "whole", data, fabric, experiment).finished
    while not train(tmp_path / "parts", data, fabric, experiment, deadline=StopAfter(2), resume=True).finished:
        pass
    same_bits(tmp_path / "whole", tmp_path / "parts")
    train(tmp_path / "plain", data, fabric, replace(experiment, augmentation=None))
    assert log_lines(tmp_path / "whole")[0]["loss"] != log_lines(tmp_path / "plain")[0]["loss"]


def test_fields_added_later_leave_identities_as_they_were() -> None:
    told = describe(CLEAN)
    assert not {"augmentation", "statistics"} & told.keys() and not {"accumulate", "average"} & told["optim"].keys()
    changed = (
        replace(CLEAN, augmentation=RandomCrop(4)),
        replace(CLEAN, statistics=BatchStatistics.EACH_RANK),
        replace(CLEAN, optim=replace(CLEAN.optim, accumulate=2)),
        replace(CLEAN, optim=replace(CLEAN.optim, average=0.9)),
    )
    assert len({experiment.identity for experiment in (CLEAN, *changed)}) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_at_20_random_instants_gives_the_same_bits(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    """SIGKILL; `test_checkpoint.py` does the same at every single operation of a save."""
    epochs = 40
    run(longer(epochs), data, tmp_path / "whole", fabric)
    command = [sys.executable, "-m", "tests.training.toy", str(tmp_path / "killed"), str(epochs), "20"]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["ready", *["killed"] * 20, "steps"], told
    assert len(set(told)) > 12, "the kills came at different steps"
    for name in ("clean", "robust"):
        same_bits(tmp_path / "whole" / name, tmp_path / "killed" / name)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    epochs = 4000
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.toy", str(tmp_path), str(epochs)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    with process, process.stdout as output, process.stderr as errors:
        assert output.readline() == "ready\n"
        while not (tmp_path / "clean" / "log.jsonl").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said, complaint = output.read(), errors.read()
    assert process.returncode == 0 and "Traceback" not in complaint, complaint
    steps = int(said.split()[-1])
    assert position(tmp_path / "clean")["step"] == steps > 0, "stopped at the step it had reached, saved"
    experiment = longer(epochs).start
    assert experiment is not None
    more = run(experiment, data, tmp_path, fabric, StopAfter(2), resume=True)
    assert more.steps == steps + 2


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    deadline, before = Deadline(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stopping(deadline):
        assert not deadline.reached
        os.kill(os.getpid(), signal.SIGTERM)
        assert deadline.reached and deadline.signalled == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_max_time_stops_and_resumes(trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    over = Deadline(1e-9)
    result = run(CLEAN, data, tmp_path, fabric, over)
    assert (result.finished, result.steps) == (False, 0)
    seconds = 0.02
    while not run(CLEAN, data, tmp_path, fabric, deadline := Deadline(seconds), resume=True).finished:
        assert deadline.reached
        seconds *= 1.5
    same_bits(trained / "clean", tmp_path / "clean")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="max-time"):
            Deadline(wrong)


def nan_at(step: int) -> Callable[[SpikingNetwork, Tensor, Tensor], Tensor]:
    calls = [0]

    def nan_loss(network: SpikingNetwork, x: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return VanRossum()(network, x, y) * (float("nan") if calls[0] == step else 1.0)

    return nan_loss


@pytest.mark.parametrize(("step", "kept"), [(1, None), (3, None), (4, 3), (5, 3), (6, 3)])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    step: int, kept: int | None, trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    experiment = replace(CLEAN, objective=Clean(nan_at(step)))
    with pytest.raises(TrainingError, match=f"loss or its gradient became nan at step {step} of 6") as caught:
        train(tmp_path, data, fabric, experiment)
    if kept is None:
        assert "no checkpoint had been written" in str(caught.value)
        assert read_pointer(tmp_path / "checkpoints") is None
    else:
        assert f"step-{kept:08d}" in str(caught.value)
        network = load(tmp_path, "last").network
        assert all(p.isfinite().all() for p in network.parameters())


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    """A spiking network with NaN weights is silent, and its loss finite: nothing would be noticed any more."""
    calls = [0]

    def poisoned(network: SpikingNetwork, x: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        loss = VanRossum()(network, x, y)
        return loss + 0 * (loss - loss.detach()).sqrt() if calls[0] == 5 else loss

    for clip in (1.0, 0.0):
        calls[0] = 0
        optim = replace(CLEAN.optim, clip=clip)
        with pytest.raises(TrainingError, match="at step 5 of 6"):
            train(tmp_path / str(clip), data, fabric, replace(CLEAN, objective=Clean(poisoned), optim=optim))
        assert all(p.isfinite().all() for p in load(tmp_path / str(clip), "last").network.parameters())


@pytest.mark.parametrize(
    ("accuracies", "best"), [((0.3, 0.9, 0.5), 2), ((0.9, 0.3, 0.5), 1), ((0.1, 0.2, 0.3), 3), ((0.5, 0.5, 0.5), 1)]
)
def test_the_best_epoch_is_the_first_of_highest_validation_accuracy(
    accuracies: tuple[float, ...],
    best: int,
    tmp_path: Path,
    data: Dataset,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sequence = iter(accuracies)
    monkeypatch.setattr("hosnn.training.loop.validate", lambda *_: Validation(next(sequence)))
    result = train(tmp_path, data, fabric, replace(CLEAN, optim=replace(CLEAN.optim, epochs=3)))
    pointer = read_pointer(tmp_path / "checkpoints")
    assert pointer == (f"step-{9:08d}", f"step-{best * STEPS_PER_EPOCH:08d}") and result.accuracy == max(accuracies)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {*pointer, "current.json"}


def test_the_test_split_is_never_looked_at(trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(ROBUST, replace(data, test=None), tmp_path, fabric)  # type: ignore[arg-type]
    same_bits(trained / "robust", tmp_path / "robust")


def test_the_log_has_one_line_per_epoch_after_any_resume(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    train(tmp_path, data, fabric, deadline=StopAfter(4))
    log = tmp_path / "log.jsonl"
    beyond = '{"step": 6, "epoch": 2, "loss": 1.0, "validation_accuracy": 0.5, "lr": 0.1}\n'
    log.write_text(log.read_text() + beyond + beyond + '{"step": 3, "ep')  # a killed run wrote on, then half a line
    train(tmp_path, data, fabric, resume=True)
    assert [(line["epoch"], line["step"]) for line in log_lines(tmp_path)] == [(1, 3), (2, 6)]
    train(tmp_path, data, fabric, resume=True)
    assert len(log_lines(tmp_path)) == 2, "resuming a finished run adds nothing"
    train(tmp_path, data, fabric)
    assert [line["epoch"] for line in log_lines(tmp_path)] == [1, 2], "starting over starts the log over"


@pytest.mark.parametrize("operation", ["write_bytes", "open"])
def test_a_log_that_cannot_be_written_keeps_what_it_had(
    operation: str, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    train(tmp_path, data, fabric, deadline=StopAfter(4))
    before, original = log_lines(tmp_path), getattr(Path, operation)

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if "log.jsonl" in path.name and (operation == "write_bytes" or "a" in arguments):
            original(path, b"") if operation == "write_bytes" else None
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, operation, full)
        with pytest.raises(CheckpointError, match="No space left"):
            train(tmp_path, data, fabric, resume=True)
    assert log_lines(tmp_path) == before
    assert train(tmp_path, data, fabric, resume=True).finished


def test_a_finished_run_is_not_trained_again(
    trained: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hosnn.training.pipeline.fit", lambda *_, **__: pytest.fail("trained again"))
    result = run(ROBUST, data, trained, fabric)
    assert result.finished and result.folder == trained / "robust" and result.steps == 6


def test_an_unfinished_run_goes_on_only_if_asked(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    run(CLEAN, data, tmp_path, fabric, StopAfter(2))
    with pytest.raises(CheckpointError, match=r"unfinished run .* --resume"):
        run(CLEAN, data, tmp_path, fabric)


OTHERS = {
    "learning rate": replace(CLEAN, optim=replace(CLEAN.optim, lr=0.2)),
    "seed": replace(CLEAN, seed=1),
    "objective": replace(CLEAN, objective=Clean(CrossEntropy())),
    "network": replace(CLEAN, network=replace(NETWORK, hidden=9)),
    "data": replace(CLEAN, data="other"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_folder_of_another_experiment_is_refused(
    other: Experiment, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    run(CLEAN, data, tmp_path, fabric, StopAfter(4))
    before = tensors(tmp_path / "clean")
    for resume in (False, True):
        with pytest.raises(CheckpointError, match="another experiment"):
            run(other, data, tmp_path, fabric, resume=resume)
    with pytest.raises(TrainingError, match="another experiment"):
        train(tmp_path / "clean", data, fabric, other, resume=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(tmp_path / "clean").items())


def test_resuming_on_other_images_is_refused(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    train(tmp_path, data, fabric, deadline=StopAfter(4))
    with pytest.raises(TrainingError, match="data"):
        train(tmp_path, toy_data(seed=1), fabric, resume=True)


def test_k_stays_non_negative_at_every_step(
    tmp_path: Path, data: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = [0.0]

    def watching(network: nn.Module) -> None:
        least.extend(layer.adaptation.min().item() for layer in talif(network))
        constrain_(network)
        assert all(bool((layer.adaptation >= 0).all()) for layer in talif(network))

    monkeypatch.setattr("hosnn.training.step.constrain_", watching)
    run(replace(ROBUST, homeostasis=Homeostasis(adaptation=0.001)), data, tmp_path, fabric)
    assert min(least) < 0, "the optimiser pushed some k below zero, or this proves nothing"
    assert all(bool((layer.adaptation >= 0).all()) for layer in talif(load(tmp_path / "robust", "last").network))


def talif(network: nn.Module) -> list[TALIF]:
    return [layer for layer in neurons(network).values() if isinstance(layer, TALIF)]


def rng(count: int) -> SampleRandom:
    return SampleRandom(0, torch.arange(count))


@pytest.mark.parametrize("craft_in", ["train", "eval"])
@pytest.mark.parametrize("training", [True, False])
def test_crafting_happens_in_the_mode_asked_for_and_leaves_the_network_as_it_was(
    craft_in: Any, training: bool, data: Dataset
) -> None:
    network, seen = fresh().train(training), []

    def watching(model: Any, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        seen.append({module.training for module in model.modules()})
        return fgsm(THREAT)(model, x, y, rng)

    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    x, y = data.train.batch(torch.arange(4))
    moved = Adversarial(watching, VanRossum(), craft_in).perturbed(network, x, y, rng(4))
    assert THREAT.allows(moved, x).all() and not torch.equal(moved, x)
    assert seen == [{craft_in == "train" and training}]
    assert {module.training for module in network.modules()} == {training}
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in network.parameters())


def test_an_attack_that_fails_leaves_the_mode_too(data: Dataset) -> None:
    network = fresh().train()

    def failing(model: Any, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        Adversarial(failing, VanRossum(), "eval").perturbed(network, *data.train.batch(torch.arange(4)), rng(4))
    assert all(module.training for module in network.modules())


ATTACKS = {
    "pgd": PGD(THREAT, steps=2, step_size=0.5),
    "through": Through(bptt(), fgsm(THREAT)),
    "traces": OnTraces(fgsm(THREAT, TraceCrossEntropy())),
    "frames": OnFrames(fgsm(THREAT)),
    "authors": OnFrames(OnTraces(fgsm(THREAT, TraceCrossEntropy()))),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_kind_of_attack_can_be_trained_on(attack: Any, tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    optim = replace(CLEAN.optim, epochs=1)
    result = train(
        tmp_path, data, fabric, replace(CLEAN, objective=Adversarial(attack, VanRossum(), "eval"), optim=optim)
    )
    assert result.finished and 0 <= result.accuracy <= 1


def test_validation_accuracy_is_taken_on_images_as_the_objective_sees_them(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    def hopeless(model: Any, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        return torch.zeros_like(x)

    result = train(tmp_path, data, fabric, replace(CLEAN, objective=Adversarial(hopeless, VanRossum(), "eval")))
    assert result.accuracy == 0.25, "black images: chance"


def test_an_epoch_counts_with_images_right_both_ways_where_perturbations_give_the_label_away(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    def telling(model: Any, x: Tensor, y: Tensor, rng: SampleRandom, /) -> Tensor:
        told = torch.zeros_like(x)
        for row, label in zip(told, y.tolist(), strict=True):
            row[..., 7 * label : 7 * label + 7, :] = 1.0
        return told

    console = Console(file=io.StringIO(), width=400)
    optim = replace(CLEAN.optim, epochs=4)
    experiment = replace(CLEAN, objective=Adversarial(telling, VanRossum(), "eval"), optim=optim)
    result = train(tmp_path, data, fabric, experiment, progress=TerminalProgress(console))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_accuracy"] > 0.9 > lines[-1]["clean"], "the perturbation tells all"
    assert all(line["both"] <= min(line["validation_accuracy"], line["clean"]) for line in lines)
    assert result.accuracy == max(line["both"] for line in lines)
    assert "label leaking" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_is_not_said_to_leak_labels_for_a_few_images_or_when_trained_on_clean_ones(trained: Path) -> None:
    assert "leaking" not in str(Validation(0.905, clean=0.9)) and "leaking" in str(Validation(0.92, clean=0.9))
    assert Validation(0.92, clean=0.9, both=0.85).selected == 0.85
    assert Validation(0.9, probe=0.4, clean=0.5, both=0.5).selected == 0.4, "the probe is another attack"
    assert all("clean" not in line for line in log_lines(trained / "clean"))
    assert all("clean" in line for line in log_lines(trained / "robust"))


def test_a_batch_larger_than_the_split_takes_it_whole(tmp_path: Path, data: Dataset, fabric: Fabric) -> None:
    optim = Optimisation(epochs=2, batch_size=1000)
    assert train(tmp_path, data, fabric, replace(CLEAN, optim=optim)).steps == 2


def test_the_learning_rate_falls_along_a_cosine_to_almost_nothing(trained: Path) -> None:
    rates = [line["lr"] for line in log_lines(trained / "clean")]
    expected = [0.1 * (1 + torch.tensor(torch.pi * step / 6).cos().item()) / 2 for step in (2, 5)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_impossible_settings_are_refused() -> None:
    for wrong in (
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"weight_decay": -1},
        {"clip": -1},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Optimisation(**wrong)
    with pytest.raises(ConfigError, match="starts from nothing"):
        replace(CLEAN, homeostasis=Homeostasis())
    with pytest.raises(ConfigError, match="craft_in"):
        Adversarial(fgsm(THREAT), VanRossum(), "sideways")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="4 desired spikes for a network of 5 time steps"):
        VanRossum((0, 1, 1, 1))(fresh(), torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("average", "told"), [(0.99, True), (0.3, False)])
def test_averaged_weights_that_stay_near_the_first_ones_are_told_of(
    average: float, told: bool, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    text = io.StringIO()
    experiment = replace(CLEAN, optim=replace(CLEAN.optim, average=average))
    run(experiment, data, tmp_path, fabric, progress=TerminalProgress(Console(file=text, width=200)))
    assert ("will hold 95% of those after the first of 6 steps" in text.getvalue()) == told


def test_an_experiment_does_not_take_the_name_of_its_start() -> None:
    with pytest.raises(ConfigError, match="whose run it would overwrite"):
        replace(ROBUST, name=CLEAN.name)
    with pytest.raises(ConfigError, match="whose run it would overwrite"):
        replace(CLEAN, start=replace(CLEAN, name="between", start=replace(CLEAN, name=CLEAN.name)))
