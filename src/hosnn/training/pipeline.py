"""An experiment with everything it starts from: train the start, calibrate, make homeostatic, train."""

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hosnn.data import Dataset, Split
from hosnn.errors import CheckpointError, ConfigError, SignatureError
from hosnn.nn.layers import SpikingNetwork
from hosnn.runtime import Deadline
from hosnn.signature import Signature, calibrate, homeostatic
from hosnn.signature.controls import static_thresholds
from hosnn.signature.signature import network_identity
from hosnn.training.checkpoint import load, load_state, read_pointer
from hosnn.training.experiment import Experiment, LearnedThresholds
from hosnn.training.loop import Run, fit
from hosnn.training.progress import Progress
from hosnn.training.ranks import Ranks, check_parts

CALIBRATION_BATCH = 100
"""Images that a network looks at together for its signature: for small ones on a CPU, more take only more memory."""


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

    A finished run of the same identity is not trained again.  With `resume`, an unfinished one goes on.
    Raises CheckpointError if runs/NAME holds another experiment, or an unfinished one and `resume` is not set.
    """
    deadline = deadline or Deadline()
    folder = runs / experiment.name
    done = finished(experiment, data, folder)
    if done is not None:
        return done
    if (experiment.network.image, experiment.network.classes) != (data.image_shape, data.num_classes):
        raise ConfigError(
            f"{data.name} has images {data.image_shape} of {data.num_classes} classes but the network of "
            f"{experiment.name!r} takes {experiment.network.image} and {experiment.network.classes}; make them agree"
        )
    check_parts(experiment.optim, len(data.train), fabric.world_size)  # before hours of work on what it starts from
    if _unfinished(experiment, data, folder, resume):
        saved = load(folder, "last")
        provenance = saved.config["provenance"]
        return fit(saved.network, experiment, data, folder, fabric, deadline, progress, True, provenance)
    if experiment.start is None:
        torch.manual_seed(experiment.seed)
        network, provenance = experiment.network.build(), dict[str, Any]()
    else:
        before = run(experiment.start, data, runs, fabric, deadline, progress, resume=True)
        if not before.finished:
            return replace(before, folder=folder)
        network = load(before.folder).network
        provenance = {"start": experiment.start.identity}
    if isinstance(experiment.homeostasis, LearnedThresholds):
        few = next(images(data.train, 2)).to(fabric.device)
        network = static_thresholds(network.to(fabric.device), few, experiment.homeostasis.share)
    elif experiment.homeostasis is not None:
        chosen = experiment.homeostasis
        path = before.folder / "signature.safetensors"
        ranks = Ranks(fabric)
        with ranks.watched(f"{before.folder}, which it starts from, is complete"):
            recorded = _signature(network.to(fabric.device), data, path, ranks, progress or Progress())
        network = homeostatic(network, recorded, chosen.adaptation, chosen.share, chosen.beyond)
        provenance |= {"signature_samples": str(recorded.samples), "signature_model": recorded.model_sha256}
    return fit(network, experiment, data, folder, fabric, deadline, progress, provenance=provenance)


def _signature(network: SpikingNetwork, data: Dataset, path: Path, ranks: Ranks, progress: Progress) -> Signature:
    """The signature of all training images: the one in the file if it is of this network and data, else written there.

    Each rank looks at its share of the blocks.
    """
    known = ranks.first(lambda: _known_signature(network, data, path))
    if known is not None:
        return known
    own = data.train.blocks(CALIBRATION_BATCH)[ranks.number :: ranks.count]
    part = None
    with progress.task(f"signature of {path.parent.name}", len(own)) as bar:

        def batches() -> Iterator[Tensor]:
            for rows in own:
                yield data.train.batch(rows)[0].to(ranks.fabric.device)
                bar.advance()

        if own:
            part = calibrate(network, batches(), dataset=f"{data.name} (train)", dataset_sha256=data.sha256)
    parts = [part for part in ranks.gather(part) if part is not None]
    found = reduce(Signature.merge, parts)
    ranks.first(lambda: found.save(path))
    return found


def _known_signature(network: SpikingNetwork, data: Dataset, path: Path) -> Signature | None:
    try:
        known = Signature.load(path)
    except SignatureError:  # none there, or damaged: recording it anew mends either
        return None
    wanted = (network_identity(network), data.sha256, len(data.train), network.steps)
    return known if (known.model_sha256, known.dataset_sha256, known.samples, known.steps) == wanted else None


def images(split: Split, batch_size: int = CALIBRATION_BATCH) -> Iterator[Tensor]:
    """The images of a split in order, float32 [B, C, H, W] in [0, 1]."""
    for rows in split.blocks(batch_size):
        yield split.batch(rows)[0]


def finished(experiment: Experiment, data: Dataset, folder: Path) -> Run | None:
    """The run in `folder` if it is this experiment on this data and complete, else None."""
    pointer = read_pointer(folder / "checkpoints")
    if pointer is None or not _is_of(folder, experiment, data):
        return None
    position = load_state(folder / "checkpoints", pointer.last).position
    if not position.get("finished"):
        return None
    return Run(folder, True, position["step"], position["best"], position["seconds"])


def _is_of(folder: Path, experiment: Experiment, data: Dataset) -> bool:
    provenance = load(folder, "last").config["provenance"]
    return (provenance.get("identity"), provenance.get("dataset_sha256")) == (experiment.identity, data.sha256)


def _unfinished(experiment: Experiment, data: Dataset, folder: Path, resume: bool) -> bool:
    """Whether `folder` holds an unfinished run to go on with."""
    if read_pointer(folder / "checkpoints") is None:
        return False
    if not _is_of(folder, experiment, data):
        raise CheckpointError(
            f"{folder} holds another experiment (its recipe, seed or data differ); choose another --runs "
            "folder, another name, or remove it"
        )
    if not resume:
        raise CheckpointError(f"{folder} holds an unfinished run of this experiment; go on with --resume, or remove it")
    return True
