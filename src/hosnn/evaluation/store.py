"""Evaluations in files: their names, and reading a stored one instead of measuring it again."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from hosnn.data import Dataset
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError, ReusedWarning, SetAsideWarning
from hosnn.evaluation.ablations import Ablations
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.journal import journal_path, remove_journals
from hosnn.evaluation.setup import Names
from hosnn.files import cannot_write, json_text, parse_json, read_json, set_aside, write_json
from hosnn.progress import Progress
from hosnn.protocols.protocol import Protocol
from hosnn.provenance import versions
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.signature import fingerprint

DEFAULT_THREAT_NAME = str(DEFAULT_THREAT)
TEST, VALIDATION = "test", "validation"
REMOVE = "move it away to measure it again"

RELEASES = ("hosnn", "torch")
"""What must be of the same version for results to be the same."""

REQUEST: dict[str, Callable[[Evaluation], Any]] = {
    "model": lambda result: result.model_sha256 or result.model,
    "data set": lambda result: result.dataset_sha256,
    "protocol or version of it": lambda result: (result.settings, result.threat),
    "choice of images": lambda result: result.index,
    "seed": lambda result: result.seed,
    "version of hosnn or torch": lambda result: [result.versions.get(name) for name in RELEASES],
}
"""What was asked for, by which results of one name are told apart."""


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
    if path.exists():
        stored = Evaluation.load(path)
        if is_of(stored, protocol, data) and (stored.model_sha256, stored.seed) == (fingerprint(network), seed):
            check_belongs(stored, data, protocol, path)
            _warn_of_releases(stored, path)
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
    save_result(result, path)
    remove_journals(journal)
    return result


def is_of(stored: Evaluation, protocol: Protocol, data: Dataset) -> bool:
    """Whether a stored evaluation is of this protocol, with its settings and number of images, on this data set."""
    samples = min(protocol.samples or len(data.test), len(data.test))
    requested = (data.sha256, protocol.settings, samples)
    return (stored.dataset_sha256, stored.settings, stored.samples) == requested


def save_result(result: Evaluation, path: Path) -> None:
    """Save a result.  What is there is replaced if it is of the same model, data, protocol, images and seed.

    Anything else is kept under another name, with the pages made from it, which a SetAsideWarning says.
    Raises ConfigError if the place cannot be written.
    """
    if path.is_file():  # a folder of that name is no result: writing fails
        try:
            stored = Evaluation.load(path)
            different = [name for name, of in REQUEST.items() if of(stored) != of(result)]
        except ConfigError:
            different = ["kind, or a damaged one"]
        if different:
            keep(path, f"a result of another {', another '.join(different)}")
    result.save(path)


def save_ablations(ablations: Ablations, path: Path) -> None:
    """Save ablations.  What is there is replaced if it has the same numbers; else it is kept, as by `save_result`."""
    content = parse_json(json_text(ablations.to_json()).encode())  # with lists in the place of tuples, as in the file
    if path.exists():
        try:
            stored = read_json(path, "ablations", dict)
        except ConfigError:
            stored = {}
        if any(stored.get(name) != part for name, part in content.items() if name not in ("versions", "machine")):
            keep(path, "the ablations of another network, or others of this one")
    write_json(path, content)


def keep(path: Path, content: str) -> None:
    """Give a stored result another name, with the pages made from it, and say so.

    content  what it holds, for the SetAsideWarning
    Raises ConfigError if it cannot be renamed.
    """
    try:
        kept = set_aside(path, (".md", ".html"))
    except OSError as error:
        raise cannot_write(path, error) from error
    warnings.warn(f"{path} held {content}; it is kept in {kept}", SetAsideWarning, stacklevel=3)


def _warn_of_releases(stored: Evaluation, path: Path) -> None:
    """Warn where a stored result is used although another version of hosnn or torch made it."""
    now = versions()
    other = [f"{name} {made}" for name in RELEASES if (made := stored.versions.get(name)) != now[name]]
    if other:
        warnings.warn(
            f"{path} was measured with {' and '.join(other)} and is used as it is; {REMOVE}", ReusedWarning, 3
        )


def check_belongs(stored: Evaluation, data: Dataset, protocol: Protocol, path: Path) -> None:
    """Raises ConfigError unless a stored result has the images of the data and the attacks of the protocol."""
    split = data.test.for_evaluation(stored.samples)
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
