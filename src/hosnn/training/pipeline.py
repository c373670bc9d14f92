"""An experiment with everything it starts from: train the start, calibrate, make homeostatic, train."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hosnn.data import Dataset, Split
from hosnn.deadline import Deadline, stopping
from hosnn.errors import CheckpointError, ConfigError, SignatureError
from hosnn.nn.layers import SpikingNetwork
from hosnn.progress import Progress
from hosnn.signature import Signature, calibrate, homeostatic
from hosnn.signature.ablations import static_thresholds
from hosnn.signature.signature import network_identity
from hosnn.training.checkpoint import load, load_state, read_pointer
from hosnn.training.experiment import Experiment, LearnedThresholds
from hosnn.training.loop import Run, check_precision, fit, precision_of
from hosnn.training.ranks import Ranks, check_parts
from hosnn.training.run_lock import exclusive, holder

CALIBRATION_BATCH = 100
"""Images per batch when a signature is recorded; larger batches only take more memory."""


def run(
    experiment: Experiment,
    data: Dataset,
    runs: Path,
    fabric: Fabric,
    deadline: Deadline | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Run:
    """Train `experiment` in runs/NAME, first training what it starts from where that is not finished already.

    A finished run of the same identity is not trained again.  With `resume`, an unfinished one is resumed.
    Raises CheckpointError if runs/NAME holds another experiment, or an unfinished one and `resume` is not set.
    """
    deadline, progress, ranks = deadline or Deadline(), progress or Progress(), Ranks(fabric)
    folder = runs / experiment.name
    earlier = finished(experiment, data, folder, precision_of(fabric))
    if earlier is not None:
        return earlier
    if (experiment.network.image, experiment.network.classes) != (data.image_shape, data.num_classes):
        raise ConfigError(
            f"{data.name} has images {data.image_shape} of {data.num_classes} classes but the network of "
            f"{experiment.name!r} takes {experiment.network.image} and {experiment.network.classes}; make them agree"
        )
    check_parts(experiment.optim, len(data.train), fabric.world_size)  # before hours of work on what it starts from
    with ranks.communicating(f"what is saved in {runs} is intact"), ExitStack() as stack:
        ranks.first(lambda: _lock(folder, stack))
        return _train(experiment, data, runs, fabric, deadline, progress, resume)


def _lock(folder: Path, stack: ExitStack) -> None:
    """Keep other processes out of the run folder until `stack` ends.  Raises CheckpointError if one is in it."""
    if not stack.enter_context(exclusive(folder)):
        raise CheckpointError(
            f"another process ({holder(folder)}) works in {folder}; wait until it ends, or choose another --runs folder"
        )


def _train(
    experiment: Experiment,
    data: Dataset,
    runs: Path,
    fabric: Fabric,
    deadline: Deadline,
    progress: Progress,
    resume: bool,
) -> Run:
    folder = runs / experiment.name
    if _unfinished(experiment, data, folder, resume):
        saved = load(folder, "last")
        provenance = saved.config["provenance"]
        return fit(saved.network, experiment, data, folder, fabric, deadline, progress, True, provenance)
    if experiment.start is None:
        torch.manual_seed(experiment.seed)
        network, provenance = experiment.network.build(), dict[str, Any]()
    else:
        start = run(experiment.start, data, runs, fabric, deadline, progress, resume=True)
        if not start.finished:
            return replace(start, folder=folder)
        network = load(start.folder).network
        provenance = {"start": experiment.start.identity}
    if isinstance(experiment.homeostasis, LearnedThresholds):
        few = next(images(data.train, 2)).to(fabric.device)
        network = static_thresholds(network.to(fabric.device), few, experiment.homeostasis.share)
    elif experiment.homeostasis is not None:
        chosen = experiment.homeostasis
        path = start.folder / "signature.safetensors"
        ranks = Ranks(fabric)
        with stopping(deadline):
            recorded = _signature(network.to(fabric.device), data, path, ranks, deadline, progress)
        if recorded is None:
            return Run(folder=folder, finished=False, steps=0, accuracy=-1.0, seconds=0.0)
        network = homeostatic(network, recorded, chosen.adaptation, chosen.share, chosen.beyond)
        provenance |= {"signature_samples": str(recorded.samples), "signature_model": recorded.model_sha256}
    return fit(network, experiment, data, folder, fabric, deadline, progress, provenance=provenance)


def _signature(
    network: SpikingNetwork, data: Dataset, path: Path, ranks: Ranks, deadline: Deadline, progress: Progress
) -> Signature | None:
    """The signature of all training images: read from `path` if it is of this network and data, else written there.

    Each rank records its share of the blocks.  None if the deadline comes first.
    """
    with ExitStack() as stack:  # of several processes that need the same signature, the first records it
        locked = ranks.first(lambda: stack.enter_context(exclusive(path.parent, deadline, f"{path.stem}.lock")))
        stored = ranks.first(lambda: _stored_signature(network, data, path))
        if stored is not None or not locked:
            return stored
        try:
            part = _part_of_signature(network, data, path, ranks, deadline, progress)
        except _TimeIsUp:
            return None
        parts = [part for part in ranks.gather(part) if part is not None]
        whole = reduce(Signature.merge, parts)
        ranks.first(lambda: whole.save(path))
        return whole


class _TimeIsUp(Exception):
    """The deadline came while a signature was recorded."""


def _part_of_signature(
    network: SpikingNetwork, data: Dataset, path: Path, ranks: Ranks, deadline: Deadline, progress: Progress
) -> Signature | None:
    """The signature of this rank's blocks; None if it has none.  Raises _TimeIsUp, on all ranks at once."""
    blocks = data.train.blocks(CALIBRATION_BATCH)
    own = blocks[ranks.number :: ranks.count]
    with progress.task(f"signature of {path.parent.name}", len(own)) as bar:

        def batches() -> Iterator[Tensor]:
            for number in range(-(-len(blocks) // ranks.count)):  # as many times on each rank, for they agree each time
                if ranks.any(deadline.reached):
                    raise _TimeIsUp
                if number < len(own):
                    yield data.train.batch(own[number])[0].to(ranks.fabric.device)
                    bar.advance()

        if not own:
            deque(batches(), maxlen=0)
            return None
        return calibrate(network, batches(), dataset=f"{data.title} (train)", dataset_sha256=data.sha256)


def _stored_signature(network: SpikingNetwork, data: Dataset, path: Path) -> Signature | None:
    try:
        stored = Signature.load(path)
    except SignatureError:  # missing or damaged: it is recorded again
        return None
    wanted = (network_identity(network), data.sha256, len(data.train), network.steps)
    return stored if (stored.model_sha256, stored.dataset_sha256, stored.samples, stored.steps) == wanted else None


def images(split: Split, batch_size: int = CALIBRATION_BATCH) -> Iterator[Tensor]:
    """The images of a split in order, float32 [B, C, H, W] in [0, 1]."""
    for rows in split.blocks(batch_size):
        yield split.batch(rows)[0]


def finished(experiment: Experiment, data: Dataset, folder: Path, precision: str | None = None) -> Run | None:
    """The run in `folder` if it is this experiment on this data and complete, else None.

    Raises TrainingError if it was trained in another precision than `precision` (None: in any).
    """
    pointer = read_pointer(folder / "checkpoints")
    if pointer is None or not _is_of(folder, experiment, data):
        return None
    position = load_state(folder / "checkpoints", pointer.last).position
    if not position.get("finished"):
        return None
    if precision is not None:
        check_precision(position, precision, folder)
    return Run(
        folder=folder,
        finished=True,
        steps=position["step"],
        accuracy=position["best"],
        seconds=position["seconds"],
    )


def _is_of(folder: Path, experiment: Experiment, data: Dataset) -> bool:
    provenance = load(folder, "last").config["provenance"]
    return (provenance.get("identity"), provenance.get("dataset_sha256")) == (experiment.identity, data.sha256)


def _unfinished(experiment: Experiment, data: Dataset, folder: Path, resume: bool) -> bool:
    """Whether `folder` holds an unfinished run to resume.  Raises CheckpointError if it must not be."""
    if read_pointer(folder / "checkpoints") is None:
        return False
    if not _is_of(folder, experiment, data):
        raise CheckpointError(
            f"{folder} holds another experiment (its recipe, seed or data differ); choose another --runs "
            "folder, another name, or remove it"
        )
    if not resume:
        raise CheckpointError(
            f"{folder} holds an unfinished run of this experiment; resume it with --resume, or remove it"
        )
    return True
