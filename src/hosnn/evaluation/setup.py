"""Before the first attack: the images, what kind of model it is, what of the protocol applies to it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.checks.inspection import inspect_network
from hosnn.data import Dataset, Split, check_images, check_labels
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError, ShapeError
from hosnn.estimators import OnFrames
from hosnn.evaluation.journal import Journal
from hosnn.evaluation.runner import AttackRunner, Images, Shard, logits_of
from hosnn.identity import digest
from hosnn.nn.modes import device_of, evaluating
from hosnn.protocols.applicability import fit_to_network
from hosnn.protocols.protocol import AttackSpec, Protocol
from hosnn.provenance import versions
from hosnn.results.evaluation import Network
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.model import Model
from hosnn.signature import fingerprint
from hosnn.spiking.kernels import backend

LOOK = 16
"""Images on which is found out what kind of model it is."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated, for the record."""

    model: str = "model"
    dataset: str = "images"
    dataset_sha256: str = ""


@dataclass(frozen=True)
class Session:
    """One evaluation under way."""

    runner: AttackRunner
    protocol: Protocol
    subject: Subject
    network: Network
    skipped: tuple[str, ...]
    fingerprint: str
    settings: str
    before: float  # seconds that blocks found done had taken, over the threads of now


def session_of(
    model: Model,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol,
    subject: Subject | None,
    seed: int,
    partial: Path | None,
    shard: Shard,
    threads: int | None,
    deadline: Deadline | None,
) -> Session:
    """Everything looked at and laid out before the first attack.  Raises as `evaluate` does."""
    subject = subject or _subject(data)
    images = _images(data, protocol.samples)
    fingerprint_ = fingerprint(model) if isinstance(model, nn.Module) else ""
    if partial is not None and not fingerprint_:
        raise ConfigError("partial=... needs an nn.Module: blocks of a plain function cannot be told from another's")
    device = device_of(model, images.x)
    look = images.x[:LOOK].to(device)
    logits = logits_of(model, look)
    _check_classes(logits, images.y)
    network = inspect_network(model, look)
    identity = _identity(protocol, subject, fingerprint_, seed, images) | {
        # Weights do not tell a model whose forward was changed since, or that ran elsewhere.
        "answers": logits.argmax(1).tolist(),
        "structure": digest(model),
        "device": device.type,
        "backend": backend.active(device),
    }
    journal = Journal(partial, identity)
    if threads is None:
        threads = (os.cpu_count() or 1) if device.type == "cpu" else 0
    if network.random or not isinstance(model, nn.Module):
        threads = 0
    runner = AttackRunner(model, images, device, seed, journal, deadline or Deadline(), shard, threads, network.random)
    before = journal.seconds / max(1, threads)
    fitting, skipped = fit_to_network(protocol, network, logits.shape[1])
    for spec in fitting.attacks:
        _check_twin(spec, look, logits.shape[1])
    return Session(runner, fitting, subject, network, skipped, fingerprint_, protocol.settings, before)


def _check_twin(spec: AttackSpec, look: Tensor, classes: int) -> None:
    """A twin that cannot be attacked should say so before hours of other attacks."""
    attack = spec.attack.attack if isinstance(spec.attack, OnFrames) else spec.attack
    if not isinstance(attack, Transfer):
        return
    source = attack.source
    try:
        with evaluating(source):
            found = logits_of(source, look.to(device_of(source, look)))
    except (ShapeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{spec.name}: it does not take these images: {error}") from error
    if found.shape[1] != classes:
        raise ConfigError(
            f"{spec.name}: it tells {found.shape[1]} classes apart, the model {classes}; give a model of the same task"
        )


def _identity(protocol: Protocol, subject: Subject, model: str, seed: int, images: Images) -> dict[str, Any]:
    """What decides an evaluation's result, for a ledger to know whether it may go on."""
    content = hashlib.sha256()
    for tensor in (images.x, images.y, images.index):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        "protocol": protocol.name,
        "threat": str(protocol.threat),
        "model": model,
        "dataset": subject.dataset_sha256,
        "images": content.hexdigest(),
        "seed": seed,
        "settings": protocol.settings,
        "block_size": protocol.block_size,
        "versions": versions(),
    }


def _images(data: Dataset | Split | tuple[Tensor, Tensor], count: int | None) -> Images:
    """Images float [N, C, H, W] with labels and index."""
    if count is not None and count < 1:
        raise ConfigError(f"evaluate got samples = {count}; expected at least 1, or None for all")
    if isinstance(data, tuple):
        x, y = data
        check_images(x)
        check_labels(y, int(y.max()) + 1 if len(y) else 1)
        if len(x) != len(y):
            raise ShapeError(f"evaluate got {len(x)} images and {len(y)} labels; expected one label per image")
        return Images(x[:count], y[:count].cpu(), torch.arange(len(y))[:count])
    split = data.test if isinstance(data, Dataset) else data
    if count is not None and count < len(split):
        split = split.subset(count)
    x, y = split.batch(torch.arange(len(split)))
    return Images(x, y.cpu(), split.index.cpu())


def _subject(data: Dataset | Split | tuple[Tensor, Tensor]) -> Subject:
    return Subject(dataset=data.name, dataset_sha256=data.sha256) if isinstance(data, Dataset) else Subject()


def _check_classes(logits: Tensor, y: Tensor) -> None:
    if int(y.max()) >= logits.shape[1]:
        raise ShapeError(
            f"the model tells {logits.shape[1]} classes apart but the labels go up to {int(y.max())}; evaluate it on "
            "the data set it was trained for"
        )
