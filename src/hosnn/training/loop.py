"""The training loop.  A run is a folder; killed at any instant, it goes on from its last checkpoint to the same bits.

Everything random in step s derives from (seed, s): the order of an epoch from (seed, epoch), dropout from (seed, s),
attacks from (seed, s, sample index).  So the position alone restores all random state.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hosnn.data import Dataset, Split
from hosnn.draws import SampleRandom
from hosnn.errors import TrainingError
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import constrain_
from hosnn.runtime import Deadline, stopping
from hosnn.training.checkpoint import (
    Pointer,
    TrainingState,
    config_of,
    load,
    load_state,
    load_weights,
    optimiser_state,
    read_pointer,
    restore_optimiser,
    save_generation,
)
from hosnn.training.configuration import describe
from hosnn.training.experiment import Experiment
from hosnn.training.log import RunLog
from hosnn.training.progress import Progress

SAVE_EVERY_SECONDS = 120.0  # besides the end of every epoch: what a kill may cost


@dataclass(frozen=True)
class Run:
    """How a training run ended.

    folder    its run folder; `hosnn.load(folder)` gives the best network
    finished  False if time ran out or the user stopped it; it then goes on with resume
    seconds   wall time of all its sessions
    accuracy  best validation accuracy, on images moved by the objective's attack if it has one
    """

    folder: Path
    finished: bool
    steps: int
    accuracy: float
    seconds: float


def fit(
    network: SpikingNetwork,
    experiment: Experiment,
    data: Dataset,
    folder: Path,
    fabric: Fabric,
    deadline: Deadline | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Run:
    """Train `network` as `experiment` says; the best epoch is chosen on the validation split, never on test.

    folder  run folder: checkpoints/, log.jsonl and tensorboard/ are written there
    resume  go on from the last checkpoint in `folder`, if there is one
    Raises TrainingError if the loss is not finite (the last good checkpoint is kept), CheckpointError for disk trouble.
    """
    deadline, progress = deadline or Deadline(), progress or Progress()
    optim = experiment.optim
    checkpoints = folder / "checkpoints"
    pointer, position, moments = None, _fresh_position(), None
    if resume and (pointer := read_pointer(checkpoints)) is not None:
        position, moments = _restore(network, checkpoints, pointer, experiment, data)
    # Only now, because restoring may give the network new parameters (k) or another precision.
    optimiser = torch.optim.AdamW(network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    model, wrapped_optimiser = fabric.setup(network, optimiser)
    if moments is not None:
        restore_optimiser(optimiser, moments)  # after setup has moved the weights: moments go where their weights are
    model.mark_forward_method("outputs")
    network_on_device = cast(SpikingNetwork, model.module)

    steps_per_epoch = max(1, len(data.train) // optim.batch_size)
    total = steps_per_epoch * optim.epochs
    config = config_of(
        describe(experiment.network),
        describe(experiment.homeostasis),
        {
            "name": experiment.name,
            "experiment": describe(experiment),
            "identity": experiment.identity,
            "dataset": data.name,
            "dataset_sha256": data.sha256,
        }
        | (provenance or {}),
    )
    log = RunLog(folder, position["step"])

    def checkpoint(is_best: bool = False) -> Pointer:
        state = TrainingState(optimiser_state(optimiser), position)
        stays = None if is_best or pointer is None else pointer.best
        return save_generation(checkpoints, network_on_device, config, state, stays)

    step, order = position["step"], None
    started = saved = time.monotonic()
    started -= position["seconds"]
    with stopping(deadline), progress.task(experiment.name, total, step) as bar:
        while step < total and not deadline.reached:
            epoch, within = divmod(step, steps_per_epoch)
            if order is None or within == 0:
                order = _epoch_order(data.train, experiment.seed, epoch)
            rows = order[within * optim.batch_size : (within + 1) * optim.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = optim.lr * (1 + math.cos(math.pi * step / total)) / 2
            loss = _step(model, network_on_device, wrapped_optimiser, experiment, data.train, rows, step, fabric)
            step += 1
            position |= {"step": step, "finished": step == total, "seconds": time.monotonic() - started}
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{experiment.name}: the loss or its gradient became {loss} at step {step} of {total} (epoch "
                    f"{epoch + 1}); "
                    f"{_kept(pointer, checkpoints)}.  Lower optim.lr or check the data, then train again"
                )
            position["loss"] = loss if within == 0 else position["loss"] + (loss - position["loss"]) / (within + 1)
            bar.advance(loss)
            if step % steps_per_epoch == 0:
                accuracy = validate(network_on_device, experiment, data.validation, fabric.device)
                is_best = accuracy > position["best"]
                position["best"] = max(accuracy, position["best"])
                log.epoch(epoch + 1, step, position["loss"], accuracy, optimiser.param_groups[0]["lr"])
                bar.report(f"epoch {epoch + 1}: loss {position['loss']:.4f}, validation accuracy {accuracy:.2%}")
                pointer, saved = checkpoint(is_best), time.monotonic()
            elif time.monotonic() - saved > SAVE_EVERY_SECONDS:
                pointer, saved = checkpoint(), time.monotonic()
        if step % steps_per_epoch:
            pointer = checkpoint()
    return Run(folder, step >= total, step, position["best"], position["seconds"])


@torch.no_grad()
def validate(
    network: SpikingNetwork, experiment: Experiment, split: Split, device: torch.device, batch_size: int = 250
) -> float:
    """Accuracy on the validation split, on images as the objective sees them."""
    network.eval()
    correct = 0
    for rows in split.blocks(batch_size):
        x, y = (tensor.to(device) for tensor in split.batch(rows))
        rng = SampleRandom(experiment.seed, split.index[rows]).fold("validation")
        x = experiment.objective.perturbed(network, x, y, rng)
        correct += int((network(x).argmax(1) == y).sum())
    return correct / len(split)


def _step(
    model: Any,
    network: SpikingNetwork,
    optimiser: Any,
    experiment: Experiment,
    split: Split,
    rows: Tensor,
    step: int,
    fabric: Fabric,
) -> float:
    x, y = (tensor.to(fabric.device) for tensor in split.batch(rows))
    rng = SampleRandom(experiment.seed, split.index[rows]).fold("training", step)
    torch.manual_seed(rng.seed)
    network.train()
    # The attack looks at the bare network: a DDP wrapper must see one forward and one backward pass per step.
    x = experiment.objective.perturbed(network, x, y, rng)
    loss = experiment.objective.loss(model, x, y).mean()
    value = float(loss.detach())
    if math.isfinite(value):
        optimiser.zero_grad()
        fabric.backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), experiment.optim.clip or math.inf)
        if not math.isfinite(norm):
            return math.nan  # weights that are not numbers fall silent, and their loss is finite again
        optimiser.step()
        constrain_(network)
    return value


def _epoch_order(split: Split, seed: int, epoch: int) -> Tensor:
    """A permutation of the training split that depends on (seed, epoch) alone."""
    keys = SampleRandom(seed, split.index).fold("order", epoch).uniform(torch.empty(len(split), 1, dtype=torch.double))
    return keys[:, 0].argsort(stable=True)


def _fresh_position() -> dict[str, Any]:
    return {"step": 0, "finished": False, "best": -1.0, "loss": 0.0, "seconds": 0.0}


def _restore(
    network: SpikingNetwork, checkpoints: Path, pointer: Pointer, experiment: Experiment, data: Dataset
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Put the saved weights into `network`; returns the position and the optimiser's state."""
    saved = load(checkpoints / pointer.last)
    identity = saved.config["provenance"].get("identity")
    if identity != experiment.identity:
        raise TrainingError(
            f"{checkpoints.parent} was trained by another experiment ({str(identity)[:12]}, this one is "
            f"{experiment.identity[:12]}): its recipe, seed or data differ; choose another folder or the same settings"
        )
    if saved.config["provenance"].get("dataset_sha256") != data.sha256:
        raise TrainingError(
            f"{checkpoints.parent} was trained on other data of the same name (sha256 now {data.sha256[:12]}); get the "
            "data it began with, or choose another folder"
        )
    load_weights(network, saved.network.state_dict(), saved.config, checkpoints / pointer.last)
    state = load_state(checkpoints, pointer.last)
    return _fresh_position() | dict(state.position), state.tensors


def _kept(pointer: Pointer | None, checkpoints: Path) -> str:
    if pointer is None:
        return "no checkpoint had been written yet"
    return f"the last good checkpoint is {checkpoints / pointer.last}"
