"""Running a protocol against a model.

Any function from images [B, C, H, W] in [0, 1] to logits [B, K] can be evaluated; gradient estimators for spiking
networks apply where hosnn layers are found.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hosnn.checks.binarization_test import BinarizationTest, run_binarization_test
from hosnn.checks.probes import diagnose
from hosnn.checks.run_checks import all_checks
from hosnn.data import Dataset, Split
from hosnn.deadline import Deadline
from hosnn.estimators import Estimator, title
from hosnn.evaluation.runner import AttackRunner, Images, Shard
from hosnn.evaluation.setup import Session, Subject, session_of
from hosnn.nn.modes import evaluating
from hosnn.progress import Bar, Progress
from hosnn.protocols.applicability import best_estimators, search_panel
from hosnn.protocols.builtin import smoke
from hosnn.protocols.protocol import PanelPlan, Protocol
from hosnn.provenance import machine, versions
from hosnn.results.evaluation import AttackResult, Evaluation, Panel
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model
from hosnn.runtime import full_precision
from hosnn.spiking.kernels import backend


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
        images, device = session.runner.images, session.runner.device
        probed = slice(0, session.protocol.probes)
        diagnosis = (
            diagnose(model, images.x[probed].to(device), images.y[probed].to(device), session.protocol.threat, seed)
            if session.protocol.probes
            else None
        )
        binarization = _binarization_test(session, found)
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
        machine() | {"backend": backend.active(session.runner.device)},
        network=session.network,
        skipped=session.skipped,
        clamped=all(spec.threat.domain is not None for spec in session.protocol.attacks),
        strength=session.protocol.strength,
    )
    return replace(result, checks=all_checks(result, diagnosis, binarization))


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
) -> tuple[Tensor, tuple[AttackResult, ...], tuple[Panel, ...], tuple[Estimator, ...]]:
    """Predictions on clean images, the protocol's rows, its panels, the search first, and what the search found."""
    runner, protocol = session.runner, session.protocol
    blocks, y = runner.images.blocks(protocol.block_size), runner.images.y
    panels = []
    found: tuple[Estimator, ...] = ()
    with progress.task(f"{session.subject.model}, {protocol.name}", _work(protocol, runner.images)) as bar:
        clean = runner.predict(blocks)
        if protocol.search:
            panels.append(_panel(runner, search_panel(protocol.search, protocol.threat), protocol.block_size, bar))
            found = best_estimators(protocol.search, panels[0].rows, y)
            bar.report(f"gradient estimators that serve best: {', '.join(map(title, found))}")
        robust = clean == y if protocol.cascade else torch.ones_like(y, dtype=torch.bool)
        rows = []
        for spec in protocol.attacks:
            row, predictions = runner.run(spec.bound(found), blocks, robust, bar)
            if protocol.cascade:
                robust = robust & (predictions == y)
            rows.append(row)
            bar.report(f"{spec.name} {float((predictions == y).double().mean()):.2%}")
        for plan in protocol.panels:
            bound = replace(plan, attacks=tuple(spec.bound(found) for spec in plan.attacks))
            panels.append(_panel(runner, bound, protocol.block_size, bar))
    return clean, tuple(rows), tuple(panels), found


def _binarization_test(session: Session, found: tuple[Estimator, ...]) -> BinarizationTest | None:
    """The binarization test on the first images, if the protocol asks for one."""
    runner, protocol = session.runner, session.protocol
    if not protocol.binarization_samples:
        return None
    images, first = runner.images, slice(0, protocol.binarization_samples)
    attacks = [spec.bound(found) for spec in protocol.attacks]
    rng = SampleRandom(runner.seed, images.index[first]).fold("active test")
    return run_binarization_test(runner.model, attacks, images.x[first].to(runner.device), protocol.threat, rng)


def _panel(runner: AttackRunner, plan: PanelPlan, block_size: int, bar: Bar) -> Panel:
    blocks = runner.images.blocks(block_size, plan.samples)
    everyone = torch.ones_like(runner.images.y, dtype=torch.bool)
    return Panel(plan.name, tuple(runner.run(spec, blocks, everyone, bar, plan.name)[0] for spec in plan.attacks))


def _work(protocol: Protocol, images: Images) -> int:
    """Number of blocks to attack."""
    total = len(images.blocks(protocol.block_size)) * len(protocol.attacks)
    if protocol.search:
        total += len(images.blocks(protocol.block_size, protocol.search.samples)) * len(protocol.search.candidates)
    return total + sum(len(images.blocks(protocol.block_size, p.samples)) * len(p.attacks) for p in protocol.panels)
