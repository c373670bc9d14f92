"""Running a protocol against a model.

Any function from images [B, C, H, W] in [0, 1] to logits [B, K] can be evaluated; gradient estimators for spiking
networks apply where hosnn layers are found.
"""

import hashlib
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.data import Dataset, Split, check_images, check_labels
from hosnn.errors import ConfigError, ShapeError
from hosnn.estimators import Estimator, OnFrames, title
from hosnn.evaluation.active import ActiveTest, challenge
from hosnn.evaluation.adapt import applicable, best, candidates
from hosnn.evaluation.findings import findings
from hosnn.evaluation.ledger import Ledger
from hosnn.evaluation.probes import diagnose, look_at
from hosnn.evaluation.protocol import Entry, PanelPlan, Protocol
from hosnn.evaluation.protocols import smoke
from hosnn.evaluation.result import Evaluation, Network, Panel, Row
from hosnn.evaluation.worker import Images, Shard, Worker, logits_of
from hosnn.nn.modes import device_of, evaluating
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.model import Model
from hosnn.robustness.random import SampleRandom
from hosnn.runtime import Deadline, full_precision, machine, versions
from hosnn.signature import fingerprint
from hosnn.training.progress import Bar, Progress

LOOK = 16
"""Images on which is found out what kind of model it is."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated, for the record."""

    model: str = "model"
    dataset: str = "images"
    dataset_sha256: str = ""


@dataclass(frozen=True)
class _Session:
    """One evaluation under way."""

    worker: Worker
    protocol: Protocol
    subject: Subject
    network: Network
    skipped: tuple[str, ...]
    fingerprint: str
    settings: str
    before: float  # seconds that blocks found done had taken, over the threads of now


def evaluate(
    model: Model,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol | None = None,
    *,
    subject: Subject | None = None,
    seed: int = 0,
    partial: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> Evaluation:
    """Accuracy of `model` under every attack of `protocol` (default: smoke), one row per attack, one entry per sample.

    data     a data set (its test split is used), a split, or (x [N, C, H, W] float in [0, 1], y [N] int64)
    partial  a file to keep finished blocks in, so that an interrupted evaluation goes on; remove it once the result is
             saved.  What shards kept beside it (`evaluate_shard`) counts as done.
    threads  blocks worked on at a time, each with one thread of torch (the result does not depend on how many);
             0: one at a time with torch's own threads; None: one per core on a CPU, and 0 on other devices.  A model
             that draws random numbers, or is no nn.Module, always gets 0.
    Raises ShapeError for images or logits of the wrong shape, range or with NaN; Interrupted when stopped early;
    ConfigError if an attack left its threat.
    """
    started = time.monotonic()
    with evaluating(model), full_precision():
        session = _session(model, data, protocol or smoke(), subject, seed, partial, Shard(), threads, deadline)
        clean, rows, panels = _attack(session, progress or Progress())
        images, device = session.worker.images, session.worker.device
        probed = slice(0, session.protocol.probes)
        diagnosis = (
            diagnose(model, images.x[probed].to(device), images.y[probed].to(device), session.protocol.threat, seed)
            if session.protocol.probes
            else None
        )
        active = _challenge(session, panels)
    result = Evaluation(
        session.protocol.name,
        session.protocol.description,
        str(session.protocol.threat),
        session.protocol.cascade,
        session.settings,
        session.subject.model,
        session.fingerprint,
        session.subject.dataset,
        session.subject.dataset_sha256,
        seed,
        tuple(images.index.tolist()),
        tuple(images.y.tolist()),
        tuple(clean.tolist()),
        rows,
        panels,
        time.monotonic() - started + session.before,
        versions(),
        machine(),
        network=session.network,
        skipped=session.skipped,
        clamped=all(entry.threat.domain is not None for entry in session.protocol.entries),
    )
    return replace(result, checks=findings(result, diagnosis, active))


def evaluate_shard(
    model: nn.Module,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol,
    shard: Shard,
    partial: Path,
    *,
    subject: Subject | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Do one share of an evaluation's blocks and keep them in `partial`, named by `ledger_path`.

    `evaluate` with the same arguments, once all shares lie in one folder, gives the bits of an undivided run.
    Raises as `evaluate` does.
    """
    with evaluating(model), full_precision():
        session = _session(model, data, protocol, subject, seed, partial, shard, threads, deadline)
        _attack(session, progress or Progress())


def _session(
    model: Model,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol,
    subject: Subject | None,
    seed: int,
    partial: Path | None,
    shard: Shard,
    threads: int | None,
    deadline: Deadline | None,
) -> _Session:
    subject = subject or _subject(data)
    images = _images(data, protocol.samples)
    fingerprint_ = fingerprint(model) if isinstance(model, nn.Module) else ""
    if partial is not None and not fingerprint_:
        raise ConfigError("partial=... needs an nn.Module: blocks of a plain function cannot be told from another's")
    device = device_of(model, images.x)
    look = images.x[:LOOK].to(device)
    logits = logits_of(model, look)
    _check_classes(logits, images.y)
    network = look_at(model, look)
    identity = _identity(protocol, subject, fingerprint_, seed, images) | {
        # Weights do not tell a model whose forward was changed since, or that ran elsewhere.
        "answers": logits.argmax(1).tolist(),
        "structure": hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode()).hexdigest(),
        "device": device.type,
    }
    ledger = Ledger(partial, identity)
    if threads is None:
        threads = (os.cpu_count() or 1) if device.type == "cpu" else 0
    if network.random or not isinstance(model, nn.Module):
        threads = 0
    worker = Worker(model, images, device, seed, ledger, deadline or Deadline(), shard, threads, network.random)
    before = ledger.seconds / max(1, threads)
    fitting, skipped = applicable(protocol, network, logits.shape[1])
    for entry in fitting.entries:
        _check_twin(entry, look, logits.shape[1])
    return _Session(worker, fitting, subject, network, skipped, fingerprint_, protocol.settings, before)


def _check_twin(entry: Entry, look: Tensor, classes: int) -> None:
    """A twin that cannot be attacked should say so before hours of other attacks."""
    attack = entry.attack.attack if isinstance(entry.attack, OnFrames) else entry.attack
    if not isinstance(attack, Transfer):
        return
    source = attack.source
    try:
        with evaluating(source):
            found = logits_of(source, look.to(device_of(source, look)))
    except (ShapeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{entry.name}: it does not take these images: {error}") from error
    if found.shape[1] != classes:
        raise ConfigError(
            f"{entry.name}: it tells {found.shape[1]} classes apart, the model {classes}; give a model of the same task"
        )


def _attack(session: _Session, progress: Progress) -> tuple[Tensor, tuple[Row, ...], tuple[Panel, ...]]:
    """Predictions on clean images, the protocol's rows, and its panels, the search first."""
    worker, protocol = session.worker, session.protocol
    blocks, y = worker.images.blocks(protocol.block_size), worker.images.y
    panels = []
    found: tuple[Estimator, ...] = ()
    with progress.task(f"{session.subject.model}, {protocol.name}", _work(protocol, worker.images)) as bar:
        clean = worker.predict(blocks)
        if protocol.search:
            panels.append(_panel(worker, candidates(protocol.search, protocol.threat), protocol.block_size, bar))
            found = best(protocol.search, panels[0].rows, y)
            bar.report(f"gradient estimators that serve best: {', '.join(map(title, found))}")
        standing = clean == y if protocol.cascade else torch.ones_like(y, dtype=torch.bool)
        rows = []
        for entry in protocol.entries:
            row, predictions = worker.run(entry.bound(found), blocks, standing, bar)
            if protocol.cascade:
                standing = standing & (predictions == y)
            rows.append(row)
            bar.report(f"{entry.name} {float((predictions == y).double().mean()):.2%}")
        for plan in protocol.panels:
            bound = replace(plan, entries=tuple(entry.bound(found) for entry in plan.entries))
            panels.append(_panel(worker, bound, protocol.block_size, bar))
    return clean, tuple(rows), tuple(panels)


def _challenge(session: _Session, panels: tuple[Panel, ...]) -> ActiveTest | None:
    """The active test on the first images, if the protocol has one."""
    worker, protocol = session.worker, session.protocol
    if not protocol.active:
        return None
    images, first = worker.images, slice(0, protocol.active)
    found = best(protocol.search, panels[0].rows, images.y) if protocol.search else ()
    entries = [entry.bound(found) for entry in protocol.entries]
    rng = SampleRandom(worker.seed, images.index[first]).fold("active test")
    return challenge(worker.model, entries, images.x[first].to(worker.device), protocol.threat, rng)


def _panel(worker: Worker, plan: PanelPlan, block_size: int, bar: Bar) -> Panel:
    blocks = worker.images.blocks(block_size, plan.samples)
    everyone = torch.ones_like(worker.images.y, dtype=torch.bool)
    return Panel(plan.name, tuple(worker.run(entry, blocks, everyone, bar, plan.name)[0] for entry in plan.entries))


def _work(protocol: Protocol, images: Images) -> int:
    """Number of blocks to attack."""
    total = len(images.blocks(protocol.block_size)) * len(protocol.entries)
    if protocol.search:
        total += len(images.blocks(protocol.block_size, protocol.search.samples)) * len(protocol.search.candidates)
    return total + sum(len(images.blocks(protocol.block_size, p.samples)) * len(p.entries) for p in protocol.panels)


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
