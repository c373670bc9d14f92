"""Running a protocol against a model.

Any function from images [B, C, H, W] in [0, 1] to logits [B, K] can be evaluated; gradient estimators for spiking
networks apply where hosnn layers are found.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.data import Dataset, Split, check_images, check_labels
from hosnn.errors import ConfigError, HosnnError, ShapeError
from hosnn.evaluation.ledger import Ledger
from hosnn.evaluation.protocols import Entry, Protocol, smoke
from hosnn.evaluation.result import Evaluation, Row
from hosnn.nn.modes import device_of, evaluating
from hosnn.robustness.model import Model
from hosnn.robustness.random import SampleRandom
from hosnn.runtime import Deadline, machine, versions
from hosnn.signature import fingerprint
from hosnn.training.progress import Bar, Progress


class Interrupted(HosnnError):
    """Work stopped before its end; the same call goes on where it stopped.

    status  exit status of a command: 1 if the time was up, 128 + number if a signal asked to stop
    """

    def __init__(self, message: str, deadline: Deadline) -> None:
        super().__init__(f"{message}; the same command goes on from there")
        self.status = 128 + deadline.signalled if deadline.signalled else 1


@dataclass(frozen=True)
class Subject:
    """What is evaluated, for the record."""

    model: str = "model"
    dataset: str = "images"
    dataset_sha256: str = ""


def evaluate(
    model: Model,
    data: Dataset | Split | tuple[Tensor, Tensor],
    protocol: Protocol | None = None,
    *,
    subject: Subject | None = None,
    seed: int = 0,
    partial: Path | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> Evaluation:
    """Accuracy of `model` under every attack of `protocol` (default: smoke), one row per attack, one entry per sample.

    data     a data set (its test split is used), a split, or (x [N, C, H, W] float in [0, 1], y [N] int64)
    partial  a file to keep finished blocks in, so that an interrupted evaluation goes on; remove it once the result is
             saved
    Raises ShapeError for images or logits of the wrong shape, range or with NaN; Interrupted when stopped early;
    ConfigError if an attack left its threat.
    """
    protocol = protocol or smoke()
    progress, deadline = progress or Progress(), deadline or Deadline()
    subject = subject or _subject(data)
    x, y, index = _samples(data, protocol.samples)
    blocks = _blocks(len(y), protocol.block_size)
    curve_blocks = _blocks(min(len(y), protocol.curve_samples), protocol.block_size)
    fingerprint_ = fingerprint(model) if isinstance(model, nn.Module) else ""
    if partial is not None and not fingerprint_:
        raise ConfigError("partial=... needs an nn.Module: blocks of a plain function cannot be told from another's")
    ledger = Ledger(partial, _identity(protocol, subject, fingerprint_, seed, (x, y, index)))
    worker = _Worker(model, x, y, index, device_of(model, x), seed, ledger, deadline)
    started = time.monotonic()
    total = len(blocks) * len(protocol.entries) + len(curve_blocks) * len(protocol.curve)
    with evaluating(model), progress.task(f"{subject.model}, {protocol.name}", total) as bar:
        clean = torch.cat([worker.predict(x[block]) for block in blocks])
        _check_classes(worker.predict_logits(x[blocks[0]]), y)
        standing = clean == y if protocol.cascade else torch.ones_like(y, dtype=torch.bool)
        rows = []
        for entry in protocol.entries:
            row, predictions = worker.run(entry, blocks, standing, bar)
            if protocol.cascade:
                standing &= predictions == y
            rows.append(row)
            bar.report(f"{entry.name} {_accuracy(row, y):.2%}")
        everyone = torch.ones_like(y, dtype=torch.bool)
        curve = [worker.run(entry, curve_blocks, everyone, bar)[0] for entry in protocol.curve]
    return Evaluation(
        protocol.name,
        protocol.description,
        str(protocol.threat),
        protocol.cascade,
        protocol.settings,
        subject.model,
        fingerprint_,
        subject.dataset,
        subject.dataset_sha256,
        seed,
        tuple(index.tolist()),
        tuple(y.tolist()),
        tuple(clean.tolist()),
        tuple(rows),
        tuple(curve),
        time.monotonic() - started,
        versions(),
        machine(),
    )


@dataclass(frozen=True)
class _Worker:
    model: Model
    x: Tensor
    y: Tensor
    index: Tensor
    device: torch.device
    seed: int
    ledger: Ledger
    deadline: Deadline

    def run(self, entry: Entry, blocks: list[slice], standing: Tensor, bar: Bar) -> tuple[Row, Tensor]:
        """One attack over all blocks; samples not standing get prediction -1."""
        predictions, seconds = [], 0.0
        for number, block in enumerate(blocks):
            done = self.ledger.get(entry.name, number)
            if done is None:
                if self.deadline.reached:
                    raise Interrupted(f"in {entry.name}, block {number + 1} of {len(blocks)}", self.deadline)
                started = time.monotonic()
                guesses = self._attack(entry, block, standing[block])
                done = self.ledger.put(entry.name, number, guesses.tolist(), time.monotonic() - started)
            predictions += done["predictions"]
            seconds += done["seconds"]
            bar.advance()
        row = Row(entry.name, str(entry.threat), float(entry.threat.ball.eps), tuple(predictions), seconds)
        return row, torch.tensor(predictions)

    def _attack(self, entry: Entry, block: slice, standing: Tensor) -> Tensor:
        guesses = torch.full((block.stop - block.start,), -1)
        rows = standing.nonzero()[:, 0]
        if len(rows):
            x, y = self.x[block][rows].to(self.device), self.y[block][rows].to(self.device)
            rng = SampleRandom(self.seed, self.index[block][rows]).fold(entry.name)
            x_adv = entry.attack(self.model, x, y, rng)
            if not _allowed(entry, x_adv, x):
                raise ConfigError(
                    f"attack {entry.name!r} left its threat {entry.threat}, so its result would mean nothing"
                )
            guesses[rows] = self.predict(x_adv)
        return guesses

    def predict(self, x: Tensor) -> Tensor:
        return self.predict_logits(x).argmax(1).cpu()

    def predict_logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.model(x.to(self.device))
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ShapeError(f"the model returned {came} for {len(x)} images; expected logits [{len(x)}, classes]")
        if not bool(logits.isfinite().all()):
            raise ShapeError("the model returned logits with NaN or infinity for valid images; mend the model first")
        return logits


def _allowed(entry: Entry, x_adv: Tensor, x: Tensor) -> bool:
    """Whether x_adv [B, C, H, W], or frames [B, T, C, H, W] under a threat per step, respects the entry's threat."""
    if x_adv.shape == x.shape:
        return bool(entry.threat.allows(x_adv, x).all())
    if not entry.threat.per_step or x_adv[:, 0].shape != x.shape:
        return False
    return bool(entry.threat.allows(x_adv, x[:, None].expand_as(x_adv)).all())


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def _identity(
    protocol: Protocol, subject: Subject, model: str, seed: int, samples: tuple[Tensor, Tensor, Tensor]
) -> dict[str, Any]:
    """What decides an evaluation's result, for a ledger to know whether it may go on."""
    images = hashlib.sha256()
    for tensor in samples:
        images.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        "protocol": protocol.name,
        "threat": str(protocol.threat),
        "model": model,
        "dataset": subject.dataset_sha256,
        "images": images.hexdigest(),
        "seed": seed,
        "settings": protocol.settings,
        "block_size": protocol.block_size,
        "versions": versions(),
    }


def _samples(data: Dataset | Split | tuple[Tensor, Tensor], count: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Images float [N, C, H, W], labels [N] and index [N]; labels and index on the CPU, where results are kept."""
    if count is not None and count < 1:
        raise ConfigError(f"evaluate got samples = {count}; expected at least 1, or None for all")
    if isinstance(data, tuple):
        x, y = data
        check_images(x)
        check_labels(y, int(y.max()) + 1 if len(y) else 1)
        if len(x) != len(y):
            raise ShapeError(f"evaluate got {len(x)} images and {len(y)} labels; expected one label per image")
        return x[:count], y[:count].cpu(), torch.arange(len(y))[:count]
    split = data.test if isinstance(data, Dataset) else data
    if count is not None and count < len(split):
        split = split.subset(count)
    x, y = split.batch(torch.arange(len(split)))
    return x, y.cpu(), split.index.cpu()


def _subject(data: Dataset | Split | tuple[Tensor, Tensor]) -> Subject:
    return Subject(dataset=data.name, dataset_sha256=data.sha256) if isinstance(data, Dataset) else Subject()


def _check_classes(logits: Tensor, y: Tensor) -> None:
    if int(y.max()) >= logits.shape[1]:
        raise ShapeError(
            f"the model tells {logits.shape[1]} classes apart but the labels go up to {int(y.max())}; evaluate it on "
            "the data set it was trained for"
        )


def _accuracy(row: Row, y: Tensor) -> float:
    return float((torch.tensor(row.predictions) == y[: len(row.predictions)]).double().mean())
