"""Evaluations in files: what they are called, and the stored one wherever it is the one asked for."""

import re
from pathlib import Path

from torch import nn

from hosnn.data import Dataset
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.setup import Subject
from hosnn.progress import Progress
from hosnn.protocols.protocol import Protocol
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.signature import fingerprint

USUAL_THREAT = str(DEFAULT_THREAT)


def file_stem(protocol: str, threat: str = USUAL_THREAT, samples: int | None = None, seed: int = 0) -> str:
    """What the files of an evaluation are called: only the protocol as it stands takes the plain name."""
    changed = (("", threat != USUAL_THREAT, threat), ("n", samples is not None, samples), ("seed", seed != 0, seed))
    shown = [re.sub(r"[:/]", "_", f"{word}{value}") for word, differs, value in changed if differs]
    return "-".join([protocol, *shown])


def on_images_of(data: Dataset, protocol: Protocol, samples: int | None) -> Protocol:
    """The protocol on so many test images, None: on its own number.  Raises ConfigError if there are not so many."""
    if samples is None:
        return protocol
    if not 1 <= samples <= len(data.test):
        raise ConfigError(f"--samples got {samples}; {data.name} has {len(data.test)} test images: 1 to so many")
    return protocol.resized(samples)


def stored_or_fresh(
    network: nn.Module,
    data: Dataset,
    protocol: Protocol,
    path: Path,
    *,
    name: str,
    seed: int,
    threads: int | None = None,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> Evaluation:
    """The evaluation in `path` if it is of this network, data, protocol and seed, else a fresh one, then stored there.

    Finished blocks of an unfinished one are kept beside it, and the same call goes on from there.
    Raises as `evaluate` does, and ConfigError if `path` cannot be read or written.
    """
    samples = min(protocol.samples or len(data.test), len(data.test))
    wanted = (fingerprint(network), data.sha256, protocol.settings, samples, seed)
    if path.exists():
        before = Evaluation.load(path)
        if (before.model_sha256, before.dataset_sha256, before.settings, before.samples, before.seed) == wanted:
            return before
    partial = journal_path(path.parent, path.stem)
    result = evaluate(
        network,
        data,
        protocol,
        subject=Subject(name, data.name, data.sha256),
        seed=seed,
        partial=partial,
        threads=threads,
        progress=progress,
        deadline=deadline,
    )
    result.save(path)
    partial.unlink(missing_ok=True)
    return result
