"""The training loop.  A run is a folder; killed at any instant, it resumes from its last checkpoint with the same bits.

All randomness is a function of the seed and the position: the order of an epoch of (seed, epoch), dropout in step s of
(seed, s, micro-batch), augmentation of (seed, epoch, sample index), attacks of (seed, s, sample index).  The position
alone restores all random state, and several ranks (processes) draw the same numbers as one, except in dropout.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hosnn.data import Dataset, Split
from hosnn.deadline import Deadline, stopping
from hosnn.errors import TrainingError
from hosnn.nn.layers import SpikingNetwork
from hosnn.progress import Progress
from hosnn.rng import SampleRandom
from hosnn.training.averaging import WeightAverage, own_weights
from hosnn.training.checkpoint import (
    Pointer,
    TrainingState,
    config_of,
    load,
    load_state,
    load_weights,
    read_pointer,
    save_generation,
)
from hosnn.training.configuration import describe
from hosnn.training.experiment import BatchStatistics, Experiment
from hosnn.training.log import RunLog
from hosnn.training.optimiser_state import optimiser_state, restore_optimiser
from hosnn.training.ranks import LossOf, Ranks, checked_batch_size, share_statistics
from hosnn.training.schedule import learning_rate
from hosnn.training.spiking_layers import describe_homeostasis
from hosnn.training.step import optimiser_step
from hosnn.training.stored import check_end
from hosnn.training.validation import validate

MOST_OF_FIRST = 0.05  # share of the first weights in averaged ones above which a training is told to be too short
SAVE_EVERY_SECONDS = 120.0  # between checkpoints within an epoch: the most work that a kill can lose


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """The state of a run after a call that trained it.

    folder    its run folder; `hosnn.load(folder)` gives the best network
    finished  False if time ran out or the user stopped it; resume=True then resumes it
    steps     steps of the optimiser so far
    seconds   wall time of training, without interruptions
    cpu_seconds  processor time of all threads (of the first rank), attacks and validation included
    accuracy  of the best epoch on the validation split: under the probe, else of images right both clean and (if the
              objective has an attack) adversarial
    """

    folder: Path
    finished: bool
    steps: int
    accuracy: float
    seconds: float
    cpu_seconds: float = 0.0


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
) -> TrainingOutcome:
    """Train `network` as `experiment` says; the best epoch is chosen on the validation split, never on test.

    folder  run folder: checkpoints/, log.jsonl and tensorboard/ are written there
    resume  from the last checkpoint in `folder`, if there is one
    Raises TrainingError if the loss is not finite (the last good checkpoint is kept), CheckpointError for disk trouble.
    """
    deadline, progress, ranks = deadline or Deadline(), progress or Progress(), Ranks(fabric)
    optim, checkpoints = experiment.optim, folder / "checkpoints"
    batch_size = checked_batch_size(optim, len(data.train), ranks.world_size)
    pointer, position = None, _fresh_position(ranks)
    state: Mapping[str, Tensor] = {}
    if resume and (pointer := read_pointer(checkpoints)) is not None:
        position, state = _restore(network, checkpoints, pointer, experiment, data, ranks)
    # Only now, because restoring may give the network new parameters (k) or another precision.
    fabric.strategy.precision.convert_module(network).to(fabric.device)
    # Fused, it passes once over memory, which takes a fraction of the time on a CPU.
    optimiser = torch.optim.AdamW(network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
    averaged = WeightAverage(network, optim.average) if optim.average else None
    if pointer is not None:
        restore_optimiser(optimiser, state, checkpoints / pointer.last)
        if averaged is not None:
            averaged.restore(network, state, checkpoints / pointer.last)
    saved_network = network if averaged is None else averaged.network
    if ranks.world_size > 1 and experiment.statistics is BatchStatistics.ALL_RANKS:
        share_statistics(network)
    what_is_kept = f"the last checkpoint in {checkpoints} is intact"
    with ranks.communicating(what_is_kept):
        model = fabric.strategy.setup_module(LossOf(network))

    steps_per_epoch = len(data.train) // batch_size
    total = optim.steps(len(data.train))
    config = config_of(
        describe(experiment.network),
        describe_homeostasis(network),
        {
            "name": experiment.name,
            "experiment": describe(experiment),
            "identity": experiment.identity,
            "dataset": data.name,
            "dataset_title": data.title,
            "dataset_source": data.origin,
            "dataset_sha256": data.sha256,
        }
        | (provenance or {}),
    )

    def checkpoint(is_best: bool = False) -> Pointer:
        position["seconds"], position["cpu_seconds"] = time.monotonic() - started, time.process_time() - cpu_started
        tensors = optimiser_state(optimiser) | ({} if averaged is None else own_weights(network))
        best = None if is_best or pointer is None else pointer.best
        state = TrainingState(tensors, position)
        return ranks.on_first(lambda: save_generation(checkpoints, saved_network, config, state, best))

    step, order, train = position["step"], None, data.train.to(fabric.device)
    last_save = time.monotonic()
    started, cpu_started = last_save - position["seconds"], time.process_time() - position["cpu_seconds"]
    with stopping(deadline), ranks.communicating(what_is_kept), progress.task(experiment.name, total, step) as bar:
        log = ranks.on_first(lambda: RunLog(folder, position["step"]))
        if step == 0 and optim.average and (share := optim.average ** (total - 1)) > MOST_OF_FIRST:
            bar.report(
                f"the averaged weights will hold {share:.0%} of those after the first of {total:,} steps: set "
                "optim.average=0, smaller batches or more epochs"
            )
        while not position["finished"] and not ranks.any(deadline.reached):
            epoch, step_in_epoch = divmod(step, steps_per_epoch)
            if order is None or step_in_epoch == 0:
                order = _epoch_order(data.train, experiment.seed, epoch)
            rows = order[step_in_epoch * batch_size : (step_in_epoch + 1) * batch_size]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(optim.lr, step / total, optim.warmup, optim.schedule)
            loss = optimiser_step(model, network, optimiser, experiment, train, rows, step, epoch, ranks)
            step += 1
            position |= {"step": step, "finished": step == total}
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{experiment.name}: the loss or its gradient became {loss} at step {step} of {total} (epoch "
                    f"{epoch + 1}); {_last_checkpoint(pointer, checkpoints)}.  Lower optim.lr or check the data, then "
                    "train again"
                )
            if averaged is not None:
                averaged.update(network)
            mean_loss = position["loss"] if step_in_epoch else loss
            position["loss"] = mean_loss + (loss - mean_loss) / (step_in_epoch + 1)
            bar.advance(loss)
            if step % steps_per_epoch == 0:
                result = validate(saved_network, experiment, data.validation, ranks)
                is_best = result.selected > position["best"]
                position["best"] = max(result.selected, position["best"])
                best, probe = position["best"], experiment.probe
                if probe and probe.has_collapsed(best, result.selected, min(probe.images, len(data.validation))):
                    position |= {"stopped": True, "finished": True}
                entry = epoch + 1, step, position["loss"], result, optimiser.param_groups[0]["lr"]
                ranks.on_first(lambda: log.epoch(*entry))  # noqa: B023
                pointer, last_save = checkpoint(is_best), time.monotonic()
                bar.report(f"epoch {epoch + 1}: loss {position['loss']:.4f}, {result}")
                if position.get("stopped"):
                    epochs = f"{epoch + 1} of {optim.epochs} epochs"
                    bar.report(f"ended after {epochs}: the probe fell from {best:.2%} to {result.selected:.2%}")
                if position["finished"]:
                    break
            elif ranks.any(time.monotonic() - last_save > SAVE_EVERY_SECONDS):
                pointer, last_save = checkpoint(), time.monotonic()
        if step % steps_per_epoch:
            pointer = checkpoint()
    return TrainingOutcome(
        folder=folder,
        finished=position["finished"],
        steps=step,
        accuracy=position["best"],
        seconds=position["seconds"],
        cpu_seconds=position["cpu_seconds"],
    )


def _epoch_order(split: Split, seed: int, epoch: int) -> Tensor:
    """A permutation of the training split that depends on (seed, epoch) alone."""
    keys = SampleRandom(seed, split.index).fold("order", epoch).uniform(torch.empty(len(split), 1, dtype=torch.double))
    return keys[:, 0].argsort(stable=True)


def precision_of(fabric: Fabric) -> str:
    """Precision of training, as `hosnn train --precision` takes it."""
    return str(fabric.strategy.precision.precision)


def _fresh_position(ranks: Ranks) -> dict[str, Any]:
    position = {"step": 0, "finished": False, "best": -1.0, "loss": 0.0, "seconds": 0.0, "cpu_seconds": 0.0}
    return position | {"ranks": ranks.world_size, "precision": precision_of(ranks.fabric)}


def _restore(
    network: SpikingNetwork, checkpoints: Path, pointer: Pointer, experiment: Experiment, data: Dataset, ranks: Ranks
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
    state = load_state(checkpoints, pointer.last)
    fresh = _fresh_position(ranks)
    position = fresh | {"ranks": 1} | dict(state.position)  # older runs recorded no ranks, and had one
    if position["ranks"] != ranks.world_size and not position["finished"]:
        raise TrainingError(
            f"{checkpoints.parent} was begun on {position['ranks']} ranks, this is {ranks.world_size}, which would not "
            f"give the same bits; resume with --devices {position['ranks']} in all, or train in another folder"
        )
    check_precision(position, fresh["precision"], checkpoints.parent)
    check_end(position, experiment.optim.steps(len(data.train)), checkpoints.parent)
    load_weights(network, saved.network.state_dict(), saved.config, checkpoints / pointer.last)
    return position, state.tensors


def check_precision(position: Mapping[str, Any], precision: str, folder: Path) -> None:
    """Raises TrainingError if a run was trained in another precision; runs that recorded none pass."""
    trained = position.get("precision", precision)
    if trained != precision:
        raise TrainingError(
            f"{folder} was trained with --precision {trained}, this is {precision}, which does not give the same bits; "
            f"give --precision {trained}, or train in another folder"
        )


def _last_checkpoint(pointer: Pointer | None, checkpoints: Path) -> str:
    if pointer is None:
        return "no checkpoint had been written yet"
    return f"the last good checkpoint is {checkpoints / pointer.last}"
