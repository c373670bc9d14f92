"""An experiment after the one it starts from: train the start, calibrate it, make it homeostatic, train further."""

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
from hosnn.training.checkpoint import load, load_state, read_generation, read_pointer
from hosnn.training.experiment import Experiment, LearnedThresholds
from hosnn.training.loop import TrainingOutcome, check_precision, fit, precision_of
from hosnn.training.ranks import Ranks, checked_batch_size
from hosnn.training.run_lock import exclusive, holder, keep_threads
from hosnn.training.stored import check_end

CALIBRATION_BATCH = 100
"""Images per batch when a signature is recorded; larger batches would only need more memory."""


def run(
    experiment: Experiment,
    data: Dataset,
    runs: Path,
    fabric: Fabric,
    deadline: Deadline | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    same_threads: bool = False,
    threads: int = 0,
) -> TrainingOutcome:
    """Train `experiment` in runs/NAME, after the experiment it starts from if that is not finished already.

    A finished run of the same identity is not trained again.  With `resume`, an unfinished one is resumed;
    `same_threads`: with as many threads of torch as it began with, because sums depend on them in their last bits;
    `threads`: as many as the user asked for, 0 for any.
    Raises CheckpointError if runs/NAME holds another experiment, or an unfinished one and `resume` is False.
    """
    deadline, progress, ranks = deadline or Deadline(), progress or Progress(), Ranks(fabric)
    folder = runs / experiment.name
    earlier = finished_run(experiment, data, folder, precision_of(fabric))
    if earlier is not None:
        return earlier
    if (experiment.network.image, experiment.network.classes) != (data.image_shape, data.num_classes):
        raise ConfigError(
            f"{data.name} has images {data.image_shape} of {data.num_classes} classes but the network of "
            f"{experiment.name!r} takes {experiment.network.image} and {experiment.network.classes}; make them agree"
        )
    # Checked before hours of training the start.
    checked_batch_size(experiment.optim, len(limited(data, experiment).train), fabric.world_size)
    with ranks.communicating(f"what is saved in {runs} is intact"), ExitStack() as stack:
        ranks.on_first(lambda: _lock(folder, stack))
        if same_threads and fabric.world_size == 1:
            keep_threads(folder, threads)
        return _train(experiment, data, runs, fabric, deadline, progress, resume)


def _lock(folder: Path, stack: ExitStack) -> None:
    """Keep other processes out of the run folder until `stack` ends.  Raises CheckpointError if one is in it."""
    if not stack.enter_context(exclusive(folder)):
        raise CheckpointError(
            f"another process ({holder(folder)}) is using {folder}; wait until it ends, or choose another --runs folder"
        )


def _train(
    experiment: Experiment,
    data: Dataset,
    runs: Path,
    fabric: Fabric,
    deadline: Deadline,
    progress: Progress,
    resume: bool,
) -> TrainingOutcome:
    folder, all_data, data = runs / experiment.name, data, limited(data, experiment)
    if _unfinished(experiment, data, folder, resume):
        saved = load(folder, "last")
        provenance = saved.config["provenance"]
        return fit(saved.network, experiment, data, folder, fabric, deadline, progress, True, provenance)
    if experiment.start is None:
        torch.manual_seed(experiment.seed)
        network, provenance = experiment.network.build(), dict[str, Any]()
    else:
        start = run(experiment.start, all_data, runs, fabric, deadline, progress, resume=True)
        if not start.finished:
            return replace(start, folder=folder)
        network = load(start.folder).network
        provenance = {"start": experiment.start.identity}
    if isinstance(experiment.homeostasis, LearnedThresholds):
        two_images = next(images(data.train, 2)).to(fabric.device)
        network = static_thresholds(network.to(fabric.device), two_images, experiment.homeostasis.share)
    elif experiment.homeostasis is not None:
        homeostasis = experiment.homeostasis
        path = start.folder / "signature.safetensors"
        ranks = Ranks(fabric)
        with stopping(deadline):
            signature = _signature(network.to(fabric.device), data, path, ranks, deadline, progress)
        if signature is None:
            return TrainingOutcome(folder=folder, finished=False, steps=0, accuracy=-1.0, seconds=0.0)
        network = homeostatic(network, signature, homeostasis.adaptation, homeostasis.share, homeostasis.beyond)
        provenance |= {"signature_samples": str(signature.samples), "signature_model": signature.model_sha256}
    return fit(network, experiment, data, folder, fabric, deadline, progress, provenance=provenance)


def _signature(
    network: SpikingNetwork, data: Dataset, path: Path, ranks: Ranks, deadline: Deadline, progress: Progress
) -> Signature | None:
    """The signature over all training images: read from `path` if it is of this network and data, else written there.

    Each rank records its share of the images.  None if the deadline comes first.
    """
    with ExitStack() as stack:  # of several processes that need the same signature, the first records it
        locked = ranks.on_first(lambda: stack.enter_context(exclusive(path.parent, deadline, f"{path.stem}.lock")))
        stored = ranks.on_first(lambda: _stored_signature(network, data, path))
        if stored is not None or not locked:
            return stored
        try:
            share = _share_of_signature(network, data, path, ranks, deadline, progress)
        except _TimeIsUp:
            return None
        shares = [share for share in ranks.gather(share) if share is not None]
        signature = reduce(Signature.merge, shares)
        ranks.on_first(lambda: signature.save(path))
        return signature


class _TimeIsUp(Exception):
    """The deadline came while a signature was recorded."""


def _share_of_signature(
    network: SpikingNetwork, data: Dataset, path: Path, ranks: Ranks, deadline: Deadline, progress: Progress
) -> Signature | None:
    """The signature over this rank's share of the images; None if that is empty.  Raises _TimeIsUp on all ranks."""
    blocks = data.train.blocks(CALIBRATION_BATCH)
    own_blocks = blocks[ranks.rank :: ranks.world_size]
    with progress.task(f"signature of {path.parent.name}", len(own_blocks)) as bar:

        def batches() -> Iterator[Tensor]:
            # Equally often on every rank, also with fewer blocks, because the ranks agree each time whether time is up.
            for number in range(-(-len(blocks) // ranks.world_size)):
                if ranks.any(deadline.reached):
                    raise _TimeIsUp
                if number < len(own_blocks):
                    yield data.train.batch(own_blocks[number])[0].to(ranks.fabric.device)
                    bar.advance()

        if not own_blocks:
            deque(batches(), maxlen=0)
            return None
        return calibrate(network, batches(), dataset=f"{data.title} (train)", dataset_sha256=data.sha256)


def _stored_signature(network: SpikingNetwork, data: Dataset, path: Path) -> Signature | None:
    """The signature in `path` if it is of this network and these training images, else None."""
    try:
        stored = Signature.load(path)
    except SignatureError:  # missing or damaged: it is recorded again
        return None
    expected = (network_identity(network), data.sha256, len(data.train), network.steps)
    return stored if (stored.model_sha256, stored.dataset_sha256, stored.samples, stored.steps) == expected else None


def limited(data: Dataset, experiment: Experiment) -> Dataset:
    """The data set with as many training images as the experiment asks for.  Raises ConfigError if it has fewer."""
    return replace(data, train=data.train.subset(experiment.images)) if experiment.images else data


def images(split: Split, batch_size: int = CALIBRATION_BATCH) -> Iterator[Tensor]:
    """The images of a split in order, float32 [B, C, H, W] in [0, 1]."""
    for rows in split.blocks(batch_size):
        yield split.batch(rows)[0]


def finished_run(
    experiment: Experiment, data: Dataset, folder: Path, precision: str | None = None
) -> TrainingOutcome | None:
    """The outcome of the run in `folder` if it is this experiment on this data and finished, else None.

    Raises TrainingError if it was trained in another precision than `precision` (None: in any).
    """
    if read_pointer(folder / "checkpoints") is None or not _is_of(folder, experiment, data):
        return None
    position = read_generation(folder, "last", lambda last: load_state(last.parent, last.name)).position
    if not position["finished"]:
        return None
    check_end(position, experiment.optim.steps(len(limited(data, experiment).train)), folder)
    if precision is not None:
        check_precision(position, precision, folder)
    return TrainingOutcome(
        folder=folder,
        finished=True,
        steps=position["step"],
        accuracy=position["best"],
        seconds=position["seconds"],
        cpu_seconds=position.get("cpu_seconds", 0.0),
    )


def _is_of(folder: Path, experiment: Experiment, data: Dataset) -> bool:
    provenance = load(folder, "last").config["provenance"]
    return (provenance.get("identity"), provenance.get("dataset_sha256")) == (experiment.identity, data.sha256)


def _unfinished(experiment: Experiment, data: Dataset, folder: Path, resume: bool) -> bool:
    """Whether `folder` holds an unfinished run to resume.  Raises CheckpointError if it must not be resumed."""
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
