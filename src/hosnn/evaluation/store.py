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
TEST, VALIDATION = "test", "validation"
REMOVE = "move it away to measure it again"


def file_stem(
    protocol: str,
    threat: str = DEFAULT_THREAT_NAME,
    samples: int | None = None,
    seed: int = 0,
    split: str = TEST,
) -> str:
    """Name of an evaluation's files without suffix: the protocol, then threat, samples, seed and split if not default.

    A protocol called "standard, attacks only" gives "standard-attacks-only".
    """
    options = (
        ("", threat != DEFAULT_THREAT_NAME, threat),
        ("n", samples is not None, samples),
        ("seed", seed != 0, seed),
        ("", split != TEST, split),
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


def of_split(data: Dataset, split: str) -> Dataset:
    """The data set whose `test` are the images to evaluate on.  Raises ConfigError for an unknown split."""
    return data if checked_split(split) == TEST else data.for_selection()


def checked_split(split: str) -> str:
    """`split`, test or validation.  Raises ConfigError for another name."""
    if split not in (TEST, VALIDATION):
        raise ConfigError(f"--split got {split!r}; expected {TEST}, or {VALIDATION} to choose between networks")
    return split


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
    Raises as `evaluate` does, and ConfigError if `path` cannot be read or written, or was changed.
    """
    samples = min(protocol.samples or len(data.test), len(data.test))
    requested = (fingerprint(network), data.sha256, protocol.settings, samples, seed)
    if path.exists():
        stored = Evaluation.load(path)
        if (stored.model_sha256, stored.dataset_sha256, stored.settings, stored.samples, stored.seed) == requested:
            _check_belongs(stored, data, protocol, path)
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


def _check_belongs(stored: Evaluation, data: Dataset, protocol: Protocol, path: Path) -> None:
    """Raises ConfigError unless a stored result has the images of the data and the attacks of the protocol."""
    split = data.test if stored.samples >= len(data.test) else data.test.subset(stored.samples)
    if stored.index != tuple(split.index.tolist()) or stored.labels != tuple(split.labels.tolist()):
        raise ConfigError(f"{path} has other images or labels than {data.title}: it was changed; {REMOVE}")
    left_out = {text.partition(": ")[0] for text in stored.skipped}
    expected = [spec.name for spec in protocol.attacks if spec.name not in left_out]
    names = [row.attack for row in stored.rows]
    # Without spiking layers of hosnn the attacks have other names, but are as many.
    if len(names) != len(expected) or (stored.network.layers and names != expected):
        raise ConfigError(
            f"{path} has the attacks {', '.join(names) or 'none'}, expected {', '.join(expected)}: it was changed; "
            f"{REMOVE}"
        )
