"""Running a protocol against a model.

Any function from images [B, C, H, W] in [0, 1] to logits [B, K] can be evaluated; gradient estimators for spiking
networks apply where hosnn layers are found.
"""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hosnn.checks.binarization_test import BinarizationTest, run_binarization_test
from hosnn.checks.diagnosis import diagnose
from hosnn.checks.run_checks import all_checks
from hosnn.data import Dataset, Split
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError
from hosnn.estimators import Estimator, estimator_name
from hosnn.evaluation.runner import AttackRunner, Images, Shard
from hosnn.evaluation.setup import Names, Setup, prepare
from hosnn.nn.modes import evaluating
from hosnn.nn.unwrapping import unwrapped
from hosnn.progress import Bar, Progress
from hosnn.protocols.builtin import protocol_by_name
from hosnn.protocols.estimator_search import best_estimators, search_panel
from hosnn.protocols.protocol import PanelPlan, Protocol
from hosnn.provenance import machine, versions
from hosnn.results.evaluation import AttackResult, Evaluation, Panel
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.runtime import as_alone, full_precision
from hosnn.spiking.kernels import backend


def evaluate(
    model: Model,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol | str = "smoke",
    *,
    attacks_only: bool = False,
    names: Names | None = None,
    samples: int | None = None,
    seed: int = 0,
    journal: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> Evaluation:
    """Predictions of `model` for every sample after every attack of `protocol`, and checks of them.

    data     a data set (its test split is used), a split, or images and labels in a container: (x, y), a TensorDataset,
             a DataLoader (`hosnn.data.containers`)
    protocol a protocol, or the name of a built-in one at Linf 8/255: smoke, quick, standard, full, paper, choices or
             sweep
    attacks_only  only the protocol's worst case, without its panels and checks; the result's protocol is then called
             "NAME, attacks only"
    samples  how many images, a fixed class-balanced choice; None: the protocol's number, or all if there are fewer
    names    what the result calls model and data
    journal  file (`journal_path`) that keeps finished blocks, so that an interrupted evaluation resumes; remove it once
             the result is saved.  Blocks in the journals of shards beside it (`evaluate_shard`) count as done.
    threads  blocks attacked at a time, each with one thread of torch (the result does not depend on how many); 0: one
             at a time with torch's own threads; None: one per core on a CPU, and 0 on other devices.  A model that
             draws random numbers, is no nn.Module, or has no copy that shares nothing and answers the same, gets 0.
    The caller's random numbers, modes of torch and of the model, and number of threads stay as they were.
    Of a compiled, parallel or exported model the network inside is attacked, which an UnwrappedWarning says.
    Raises ShapeError for images or logits of the wrong shape, range or with NaN, for images or a model of fewer bits
    than float32, and for a model that does not take batches of any size; Interrupted when stopped early; ConfigError
    for an unknown protocol, a network whose copies gradient estimators do not reach, if an attack left its threat, and
    for a threat to 8 bits and images that are not of 8 bits.
    """
    started = time.monotonic()
    model = unwrapped(model, "evaluate")
    with as_alone(), evaluating(model), full_precision(), ExitStack() as until_end:
        setup = prepare(
            model,
            data,
            _requested(protocol, attacks_only),
            names=names,
            samples=samples,
            seed=seed,
            journal=journal,
            shard=Shard(),
            threads=threads,
            deadline=deadline,
            until_end=until_end,
        )
        model = setup.runner.model
        outcome = _attack(setup, progress or Progress())
        images, device, fitted = setup.runner.images, setup.runner.device, setup.protocol
        measured = slice(0, fitted.model_check_samples)
        off_grid = replace(fitted.threat, bits=None)
        diagnosis = (
            diagnose(model, images.x[measured].to(device), images.y[measured].to(device), off_grid, seed)
            if fitted.model_check_samples
            else None
        )
        binarization = _binarization_test(setup, outcome.estimators)
    result = Evaluation(
        protocol=fitted.name,
        description=fitted.description,
        threat=str(fitted.threat),
        cascade=fitted.cascade,
        settings=setup.settings,
        model=setup.names.model,
        model_sha256=setup.fingerprint,
        dataset=setup.names.dataset,
        dataset_sha256=setup.names.dataset_sha256,
        seed=seed,
        index=tuple(images.index.tolist()),
        labels=tuple(images.y.tolist()),
        clean=tuple(outcome.clean.tolist()),
        clean_tied=tuple(outcome.clean_tied.nonzero()[:, 0].tolist()) if fitted.ties_lost else None,
        rows=outcome.rows,
        panels=outcome.panels,
        seconds=time.monotonic() - started + setup.seconds_before,
        versions=versions(),
        machine=machine() | {"backend": backend.active(device)},
        network=setup.network,
        skipped=setup.skipped,
        clamped=all(spec.threat.domain is not None for spec in fitted.attacks),
        strength=fitted.strength,
        attacks_only=fitted.attacks_only,
    )
    return result if fitted.attacks_only else replace(result, checks=all_checks(result, diagnosis, binarization))


def evaluate_shard(
    model: nn.Module,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol | str,
    shard: Shard,
    journal: Path,
    *,
    attacks_only: bool = False,
    names: Names | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Attack one shard of an evaluation's blocks and keep them in `journal`, a file named by `journal_path`.

    `evaluate` with the same arguments, once the journals of all shards are in one folder, gives the same bits as if it
    had attacked all blocks itself.  Raises as `evaluate` does.
    """
    model = unwrapped(model, "evaluate")
    with as_alone(), evaluating(model), full_precision(), ExitStack() as until_end:
        setup = prepare(
            model,
            data,
            _requested(protocol, attacks_only),
            names=names,
            samples=samples,
            seed=seed,
            journal=journal,
            shard=shard,
            threads=threads,
            deadline=deadline,
            until_end=until_end,
        )
        _attack(setup, progress or Progress())


def _requested(protocol: Protocol | str, attacks_only: bool) -> Protocol:
    """The protocol that `evaluate` is asked for.  Raises ConfigError if it is none."""
    if isinstance(protocol, str):
        protocol = protocol_by_name(protocol, DEFAULT_THREAT)
    if not isinstance(protocol, Protocol):
        raise ConfigError(
            f"evaluate got the protocol {protocol!r}; expected a name, such as 'standard', or a Protocol, such as "
            "hosnn.standard(threat)"
        )
    return protocol.without_checks() if attacks_only else protocol


class _AttackOutcome(NamedTuple):
    """Predictions on clean images, which of these are tied, results of the attacks and panels, the estimators that the
    search selected."""

    clean: Tensor
    clean_tied: Tensor
    rows: tuple[AttackResult, ...]
    panels: tuple[Panel, ...]
    estimators: tuple[Estimator, ...]


def _attack(setup: Setup, progress: Progress) -> _AttackOutcome:
    """Run the search, the attacks and the panels; the attacks use the search's estimators."""
    runner, protocol = setup.runner, setup.protocol
    blocks, y = runner.images.blocks(protocol.block_size), runner.images.y
    panels = []
    estimators: tuple[Estimator, ...] = ()
    with progress.task(f"{setup.names.model}, {protocol.name}", _work(protocol, runner.images)) as bar:
        clean, clean_tied = runner.predict(blocks)
        if protocol.search:
            panels.append(_panel(runner, search_panel(protocol.search, protocol.threat), protocol.block_size, bar))
            estimators = best_estimators(protocol.search, panels[0].rows, y)
            bar.report(f"best gradient estimators: {', '.join(map(estimator_name, estimators))}")
        robust = clean == y if protocol.cascade else torch.ones_like(y, dtype=torch.bool)
        tied = clean_tied & protocol.cascade & protocol.ties_lost
        rows = []
        for spec in protocol.attacks:
            result, predictions = runner.run(spec.resolved(estimators), blocks, robust, bar, tied=tied)
            if protocol.cascade:
                robust = robust & (predictions == y)
                tied[list(result.tied or ())] = True
            rows.append(result)
            own = [predictions[block] == y[block] for at, block in enumerate(blocks) if setup.runner.shard.has(at)]
            if own:
                bar.report(f"{spec.name} {float(torch.cat(own).double().mean()):.2%}")
        for plan in protocol.panels:
            resolved = replace(plan, attacks=tuple(spec.resolved(estimators) for spec in plan.attacks))
            panels.append(_panel(runner, resolved, protocol.block_size, bar))
    return _AttackOutcome(clean, clean_tied, tuple(rows), tuple(panels), estimators)


def _binarization_test(setup: Setup, estimators: tuple[Estimator, ...]) -> BinarizationTest | None:
    """The binarization test on the first images, if the protocol asks for one."""
    runner, protocol = setup.runner, setup.protocol
    if not protocol.binarization_samples:
        return None
    images, first = runner.images, slice(0, protocol.binarization_samples)
    attacks = [spec.resolved(estimators) for spec in protocol.attacks]
    rng = SampleRandom(runner.seed, images.index[first]).fold("active test")  # its former name; keeps the numbers
    return run_binarization_test(runner.model, attacks, images.x[first].to(runner.device), protocol.threat, rng)


def _panel(runner: AttackRunner, plan: PanelPlan, block_size: int, bar: Bar) -> Panel:
    blocks = runner.images.blocks(block_size, plan.samples)
    every_image = torch.ones_like(runner.images.y, dtype=torch.bool)
    return Panel(plan.name, tuple(runner.run(spec, blocks, every_image, bar, plan.name)[0] for spec in plan.attacks))


def _work(protocol: Protocol, images: Images) -> int:
    """Number of blocks to attack."""
    total = len(images.blocks(protocol.block_size)) * len(protocol.attacks)
    if protocol.search:
        total += len(images.blocks(protocol.block_size, protocol.search.samples)) * len(protocol.search.candidates)
    return total + sum(
        len(images.blocks(protocol.block_size, panel.samples)) * len(panel.attacks) for panel in protocol.panels
    )
