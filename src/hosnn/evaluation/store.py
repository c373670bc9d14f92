"""Evaluations in files: their names, and reading a stored one instead of measuring it again."""

import re
from pathlib import Path

from torch import nn

from hosnn.data import Dataset
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.setup import Names
from hosnn.progress import Progress
from hosnn.protocols.protocol import Protocol
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.signature import fingerprint

DEFAULT_THREAT_NAME = str(DEFAULT_THREAT)


def file_stem(protocol: str, threat: str = DEFAULT_THREAT_NAME, samples: int | None = None, seed: int = 0) -> str:
    """Name of an evaluation's files without suffix: the protocol, then threat, samples and seed if not default.

    A protocol called "standard, attacks only" gives "standard-attacks-only".
    """
    options = (
        ("", threat != DEFAULT_THREAT_NAME, threat),
        ("n", samples is not None, samples),
        ("seed", seed != 0, seed),
    )
    parts = [re.sub(r"[:/@]", "_", f"{word}{value}") for word, differs, value in options if differs]
    return "-".join([re.sub(r"[^\w.-]+", "-", protocol), *parts])


def with_samples(protocol: Protocol, data: Dataset, samples: int | None) -> Protocol:
    """The protocol on `samples` test images; None: unchanged.  Raises ConfigError if there are fewer."""
    if samples is None:
        return protocol
    if not 1 <= samples <= len(data.test):
        raise ConfigError(
            f"--samples got {samples}; {data.name} has {len(data.test)} test images, expected 1 to that many"
        )
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
    """The evaluation in `path` if it is of this network, data, protocol and seed; else a new one, stored there.

    An interrupted one keeps its finished blocks in a journal beside `path`, and the same call resumes it.
    Raises as `evaluate` does, and ConfigError if `path` cannot be read or written.
    """
    samples = min(protocol.samples or len(data.test), len(data.test))
    requested = (fingerprint(network), data.sha256, protocol.settings, samples, seed)
    if path.exists():
        stored = Evaluation.load(path)
        if (stored.model_sha256, stored.dataset_sha256, stored.settings, stored.samples, stored.seed) == requested:
            return stored
    journal = journal_path(path.parent, path.stem)
    result = evaluate(
        network,
        data,
        protocol,
        names=Names(name, data.title, data.sha256),
        seed=seed,
        journal=journal,
        threads=threads,
        progress=progress,
        deadline=deadline,
    )
    result.save(path)
    journal.unlink(missing_ok=True)
    return result
