"""Preparing an evaluation: its images, facts about the model, the attacks that apply, the journal."""

import hashlib
import math
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.checks.inspection import inspect_network
from hosnn.checks.precision import check_precision
from hosnn.data import Dataset, Split
from hosnn.data.containers import images_and_labels
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError, ShapeError
from hosnn.estimators import check_reach, has_spiking_layers
from hosnn.evaluation.journal import Journal
from hosnn.evaluation.model_code import code_digest
from hosnn.evaluation.requirements import (
    check_batch_sizes,
    check_transfer_source,
    check_weights,
    input_kept,
)
from hosnn.evaluation.runner import AttackRunner, Images, Shard, logits_of
from hosnn.identity import digest
from hosnn.images import check_images
from hosnn.nn.modes import device_of
from hosnn.protocols.applicability import fit_to_task, uses_estimators, without_estimators
from hosnn.protocols.protocol import Protocol
from hosnn.provenance import versions
from hosnn.results.evaluation import Network
from hosnn.robustness.grid import check_budget, check_on_grid
from hosnn.robustness.model import Model
from hosnn.runtime import check_seed
from hosnn.signature import fingerprint
from hosnn.spiking.kernels import backend

INSPECTION_IMAGES = 16
"""Images on which the model is inspected before the attacks."""


@dataclass(frozen=True)
class Names:
    """Names of model and data in the result, and the SHA-256 of the data set.

    Raises ConfigError for a `dataset_sha256` that is no SHA-256.
    """

    model: str = "model"
    dataset: str = "images"
    dataset_sha256: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch("([0-9a-f]{64})?", self.dataset_sha256):
            raise ConfigError(
                f"Names got dataset_sha256 = {self.dataset_sha256!r}; expected 64 hexadecimal digits, or nothing"
            )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One evaluation, ready for its first attack.

    protocol        the attacks of the requested protocol that apply to the model
    settings        hash of the requested protocol
    skipped         attacks that do not apply, each with the reason
    fingerprint     SHA-256 of the model, empty for a plain function
    seconds_before  time that the blocks in the journal took, divided by the present number of threads
    """

    runner: AttackRunner
    protocol: Protocol
    names: Names
    network: Network
    skipped: tuple[str, ...]
    fingerprint: str
    settings: str
    seconds_before: float


def prepare(
    model: Model,
    data: Dataset | Split | Any,
    protocol: Protocol,
    *,
    names: Names | None,
    samples: int | None,
    seed: int,
    journal: Path | None,
    shard: Shard,
    threads: int | None,
    deadline: Deadline | None,
    until_end: ExitStack,
) -> Setup:
    """Check the arguments, which are those of `evaluate`, and prepare; raises as it does.

    until_end  what is changed in the model is undone when it closes
    """
    check_seed(seed)
    if threads is not None and threads < 0:
        raise ConfigError(
            f"threads got {threads}; expected a number of blocks at a time, or 0 for one with torch's own threads"
        )
    check_weights(model)
    split = _split_of(data)
    if samples is not None:
        protocol = protocol.resized(_at_most(samples, len(split)))
    images = _images(split, protocol.samples)
    check_on_grid(protocol.threat, images.x)
    check_budget(protocol.threat, images.x)
    content = _content(images)
    names = names or _names(data, split, len(images.y), content)
    model_hash = fingerprint(model) if isinstance(model, nn.Module) else ""
    if journal is not None and not model_hash:
        raise ConfigError("journal=... needs an nn.Module: a journal could not tell one plain function from another")
    device = device_of(model, images.x)
    first_images = images.x[:INSPECTION_IMAGES].to(device)
    model = until_end.enter_context(input_kept(model, first_images))
    check_precision(model, first_images, "the model")
    logits = logits_of(model, first_images)
    _check_classes(logits, images.y)
    check_batch_sizes(model, first_images)
    network = inspect_network(model, first_images)
    identity = _identity(protocol, names, model_hash, seed, content) | {
        # Equal weights are not enough: forward may have been changed since, or the device may be another.
        "answers": logits.argmax(1).tolist(),
        "scale": math.frexp(float(logits.float().std()))[1],  # a power of two, which rounding does not change
        "structure": digest(model),
        "code": code_digest(model) if isinstance(model, nn.Module) else "",
        "device": device.type,
        "backend": backend.active(device),
    }
    finished = Journal(journal, identity)
    if threads is None:
        threads = (os.cpu_count() or 1) if device.type == "cpu" else 0
    if network.random or network.copies != "equal":
        threads = 0
    runner = AttackRunner(
        model=model,
        images=images,
        device=device,
        seed=seed,
        journal=finished,
        deadline=deadline or Deadline(),
        shard=shard,
        threads=threads,
        random=network.random,
        ties_lost=protocol.ties_lost,
    )
    remaining, skipped = fit_to_task(protocol, network, logits.shape[1], images.x)
    if not has_spiking_layers(model):
        remaining = without_estimators(remaining)
    elif uses_estimators(remaining):
        check_reach(model, first_images)
    for spec in remaining.attacks:
        check_transfer_source(spec, first_images, logits.shape[1])
    return Setup(
        runner=runner,
        protocol=remaining,
        names=names,
        network=network,
        skipped=skipped,
        fingerprint=model_hash,
        settings=protocol.settings,
        seconds_before=finished.seconds / max(1, threads),
    )


def _content(images: Images) -> str:
    """SHA-256 of pixels, labels and numbers of the images."""
    content = hashlib.sha256()
    for tensor in (images.x, images.y, images.index):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _identity(protocol: Protocol, names: Names, model: str, seed: int, images: str) -> dict[str, Any]:
    """What decides an evaluation's result: a journal with another identity is not resumed."""
    return {
        "protocol": protocol.name,
        "threat": str(protocol.threat),
        "model": model,
        "dataset": names.dataset_sha256,
        "images": images,
        "seed": seed,
        "settings": protocol.settings,
        "block_size": protocol.block_size,
        "versions": versions(),
    }


def _split_of(data: Dataset | Split | Any) -> Split:
    """The images to evaluate on: a data set's test split, a split, or those of a container."""
    if isinstance(data, Dataset):
        return data.test
    return data if isinstance(data, Split) else Split.in_order(*images_and_labels(data, "evaluate"))


def _images(split: Split, count: int | None) -> Images:
    """Images float [N, C, H, W] with labels and index, as `Split.for_evaluation` chooses and orders them."""
    if count is not None and count < 1:
        raise ConfigError(f"evaluate got samples = {count}; expected at least 1, or None for all")
    split = split.for_evaluation(count)
    x, y = (part.clone() if part.is_inference() else part for part in split.batch(torch.arange(len(split))))
    check_images(x, origin="evaluate")
    if len(set(split.index.tolist())) < len(split) or int(split.index.min()) < 0:
        raise ShapeError(
            "evaluate got images whose numbers (index) are negative or repeated; expected one of its own for each, as "
            "attacks draw their random numbers by it"
        )
    return Images(x, y.cpu(), split.index.cpu())


def _at_most(samples: int, available: int) -> int:
    if not 1 <= samples <= available:
        raise ConfigError(f"evaluate got samples = {samples}; there are {available:,} images: 1 to so many")
    return samples


def _names(data: Dataset | Split | Any, split: Split, count: int, content: str) -> Names:
    """What a result calls its data; of a container it says so where not all images were taken.

    content  SHA-256 of the images evaluated, which tells containers apart
    """
    if isinstance(data, Dataset):
        return Names(dataset=data.title, dataset_sha256=data.sha256)
    if count == len(split):
        return Names(dataset_sha256=content)
    return Names(dataset=f"images, a class-balanced {count:,} of {len(split):,}", dataset_sha256=content)


def _check_classes(logits: Tensor, y: Tensor) -> None:
    """Raises ShapeError for labels that the model has no class for, or that are negative."""
    if int(y.min()) < 0:
        raise ShapeError(
            f"the labels go down to {int(y.min())}; expected numbers of classes, 0 to {logits.shape[1] - 1}"
        )
    if int(y.max()) >= logits.shape[1]:
        raise ShapeError(
            f"the model has {logits.shape[1]} classes but the labels go up to {int(y.max())}; evaluate it on the data "
            "set it was trained for"
        )
