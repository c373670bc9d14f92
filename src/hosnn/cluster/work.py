"""The work of a sweep's jobs: train an experiment and evaluate it, resuming where another worker stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from hosnn.cluster.record import EvaluationSummary, TrialResult
from hosnn.data import Dataset, load_dataset
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError
from hosnn.evaluation.store import DEFAULT_THREAT_NAME, TEST, file_stem, of_split, stored_or_fresh, with_samples
from hosnn.files import read_json, write_json
from hosnn.protocols.builtin import protocol_by_name
from hosnn.provenance import machine
from hosnn.results.document import Machine
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
from hosnn.schema import validated
from hosnn.training.checkpoint import load
from hosnn.training.experiment import Experiment
from hosnn.training.loop import TrainingOutcome, precision_of
from hosnn.training.pipeline import finished_run, run
from hosnn.training.run_lock import exclusive

RECORD = "machine.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Content of a run folder's machine.json: the experiment that a sweep trains there, and where it last began."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    identity: str
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all trials of a sweep have in common: folders, hardware, how they are evaluated.

    runs, data_folder  absolute, for a worker's working directory may be another
    protocol           None: trials are only trained
    split              of the evaluation
    data               name or absolute path of the data set; None: that of the experiment
    """

    runs: Path
    data_folder: Path | None
    hardware: Hardware
    protocol: str | None = None
    threat: str = DEFAULT_THREAT_NAME
    samples: int | None = None
    split: str = TEST
    data: str | None = None


def train_start(experiment: Experiment, conditions: Conditions, deadline: Deadline) -> None:
    """Train an experiment that trials start from.  Raises Interrupted if the deadline comes first."""
    with working_in(conditions.runs / experiment.name, deadline):
        _train(experiment, _data(conditions.data or experiment.data, conditions.data_folder), conditions, deadline)


def run_trial(experiment: Experiment, conditions: Conditions, deadline: Deadline) -> TrialResult:
    """A trial: train, then evaluate.  Raises Interrupted if the deadline comes first."""
    folder = conditions.runs / experiment.name
    with working_in(folder, deadline):
        data = _data(conditions.data or experiment.data, conditions.data_folder)
        training = _train(experiment, data, conditions, deadline)
        versions = load(folder).config["versions"]
        figures = None if conditions.protocol is None else _evaluate(experiment, data, conditions, deadline)
    return TrialResult(
        validation=training.accuracy,
        steps=training.steps,
        seconds=training.seconds,
        cpu_seconds=training.cpu_seconds,
        versions=versions,
        machine=dict(training_machine(folder, experiment)),
        evaluation=figures,
    )


def _train(experiment: Experiment, data: Dataset, conditions: Conditions, deadline: Deadline) -> TrainingOutcome:
    folder = conditions.runs / experiment.name
    fabric = conditions.hardware.fabric()
    earlier = finished_run(experiment, data, folder, precision_of(fabric))
    if earlier is not None:
        return earlier
    recorded = _recorded(folder)
    if recorded is None or recorded.identity == experiment.identity:
        # Before the training, after which nothing may fail: a finished run is not trained again.
        write_json(folder / RECORD, {"identity": experiment.identity, "machine": machine()})
    training = run(experiment, data, conditions.runs, fabric, deadline, resume=True)
    if not training.finished:
        raise Interrupted(f"in the training of {experiment.name}", deadline)
    return training


def _evaluate(experiment: Experiment, data: Dataset, conditions: Conditions, deadline: Deadline) -> EvaluationSummary:
    by_name = protocol_by_name(conditions.protocol or "", Threat.parse(conditions.threat))
    data = of_split(data, conditions.split)
    resized = with_samples(by_name, data, conditions.samples)
    stem = file_stem(resized.name, conditions.threat, conditions.samples, experiment.seed, conditions.split)
    name = f"{stem}.json"
    folder = conditions.runs / experiment.name
    fabric = conditions.hardware.fabric()
    result = stored_or_fresh(
        load(folder).network.to(fabric.device),
        data,
        resized,
        folder / "evaluations" / name,
        name=experiment.name,
        seed=experiment.seed,
        threads=conditions.hardware.threads if fabric.device.type == "cpu" else 0,
        deadline=deadline,
    )
    return EvaluationSummary(
        protocol=result.protocol,
        threat=result.threat,
        samples=result.samples,
        clean=result.clean_accuracy,
        worst=result.worst_case,
        accuracy={row.attack: result.accuracy(row.attack) for row in result.rows},
        verdict=result.verdict,
        seconds=result.seconds,
        file=f"evaluations/{name}",
        versions=result.versions,
        machine=result.machine,
    )


def training_machine(folder: Path, experiment: Experiment) -> Machine:
    """The machine that finished the training; empty if it was not trained in a sweep."""
    recorded = _recorded(folder)
    return recorded.machine if recorded is not None and recorded.identity == experiment.identity else {}


def _recorded(folder: Path) -> TrainingRecord | None:
    """The record in a run folder; None if there is none, or a damaged one."""
    try:
        return read_json(folder / RECORD, "record of a training", lambda content: validated(TrainingRecord, content))
    except ConfigError:
        return None


@lru_cache(maxsize=2)
def _data(name: str, folder: Path | None) -> Dataset:
    """The data set; a worker runs many trials, and reads their data once."""
    return load_dataset(name, folder)


@contextmanager
def working_in(folder: Path, deadline: Deadline) -> Iterator[None]:
    """Wait until no other process, of this sweep or of another command, works in a run folder; then keep others out.

    Raises Interrupted if the deadline comes first.
    """
    with exclusive(folder, deadline) as locked:
        if not locked:
            raise Interrupted(f"while another process worked in {folder}", deadline)
        yield
