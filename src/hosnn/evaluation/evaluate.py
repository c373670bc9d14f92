"""Running a protocol against a model.

Any function from images [B, C, H, W] in [0, 1] to logits [B, K] can be evaluated; gradient estimators for spiking
networks apply where hosnn layers are found.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hosnn.data import Dataset, Split
from hosnn.draws import SampleRandom
from hosnn.estimators import Estimator, title
from hosnn.evaluation.active import ActiveTest, challenge
from hosnn.evaluation.adapt import best, candidates
from hosnn.evaluation.findings import findings
from hosnn.evaluation.probes import diagnose
from hosnn.evaluation.protocol import PanelPlan, Protocol
from hosnn.evaluation.protocols import smoke
from hosnn.evaluation.result import Evaluation, Panel, Row
from hosnn.evaluation.session import Session, Subject, session_of
from hosnn.evaluation.worker import Images, Shard, Worker
from hosnn.nn.modes import evaluating
from hosnn.robustness.model import Model
from hosnn.runtime import Deadline, full_precision, machine, versions
from hosnn.spiking.kernels import backend
from hosnn.training.progress import Bar, Progress


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
        session = session_of(model, data, protocol or smoke(), subject, seed, partial, Shard(), threads, deadline)
        clean, rows, panels, found = _attack(session, progress or Progress())
        images, device = session.worker.images, session.worker.device
        probed = slice(0, session.protocol.probes)
        diagnosis = (
            diagnose(model, images.x[probed].to(device), images.y[probed].to(device), session.protocol.threat, seed)
            if session.protocol.probes
            else None
        )
        active = _challenge(session, found)
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
        machine() | {"backend": backend.active(session.worker.device)},
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
        session = session_of(model, data, protocol, subject, seed, partial, shard, threads, deadline)
        _attack(session, progress or Progress())


def _attack(
    session: Session, progress: Progress
) -> tuple[Tensor, tuple[Row, ...], tuple[Panel, ...], tuple[Estimator, ...]]:
    """Predictions on clean images, the protocol's rows, its panels, the search first, and what the search found."""
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
    return clean, tuple(rows), tuple(panels), found


def _challenge(session: Session, found: tuple[Estimator, ...]) -> ActiveTest | None:
    """The active test on the first images, if the protocol has one."""
    worker, protocol = session.worker, session.protocol
    if not protocol.active:
        return None
    images, first = worker.images, slice(0, protocol.active)
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
