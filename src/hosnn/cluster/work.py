"""What workers do: train an experiment, evaluate what came of it, going on where another worker stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hosnn.cluster.record import Figures, Result
from hosnn.data import Dataset, load_dataset
from hosnn.deadline import Deadline, Interrupted
from hosnn.evaluation.store import USUAL_THREAT, file_stem, on_images_of, stored_or_fresh
from hosnn.files import write_json
from hosnn.protocols.builtin import protocol
from hosnn.provenance import machine
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
from hosnn.training import lock
from hosnn.training.checkpoint import load
from hosnn.training.experiment import Experiment
from hosnn.training.loop import Run, precision_of
from hosnn.training.pipeline import finished, run


@dataclass(frozen=True)
class Conditions:
    """What is the same for all trials of a sweep: where they lie, what they run on, how they are evaluated.

    runs, data_folder  absolute, for workers may stand elsewhere
    protocol           None: they are trained only
    """

    runs: Path
    data_folder: Path | None
    hardware: Hardware
    protocol: str | None = None
    threat: str = USUAL_THREAT
    samples: int | None = None


def train(experiment: Experiment, conditions: Conditions, deadline: Deadline) -> None:
    """Train what others start from.  Raises Interrupted if the deadline comes first."""
    with alone(conditions.runs / experiment.name, deadline):
        _trained(experiment, _data(experiment.data, conditions.data_folder), conditions, deadline)


def carry_out(experiment: Experiment, conditions: Conditions, deadline: Deadline) -> Result:
    """A trial: train, then evaluate.  Raises Interrupted if the deadline comes first."""
    folder = conditions.runs / experiment.name
    with alone(folder, deadline):
        data = _data(experiment.data, conditions.data_folder)
        outcome = _trained(experiment, data, conditions, deadline)
        versions = load(folder).config["versions"]
        figures = None if conditions.protocol is None else _evaluated(experiment, data, conditions, deadline)
    return Result(outcome.accuracy, outcome.steps, outcome.seconds, versions, _trained_on(folder, experiment), figures)


def _trained(experiment: Experiment, data: Dataset, conditions: Conditions, deadline: Deadline) -> Run:
    folder = conditions.runs / experiment.name
    fabric = conditions.hardware.fabric()
    before = finished(experiment, data, folder, precision_of(fabric))
    if before is not None:
        return before
    outcome = run(experiment, data, conditions.runs, fabric, deadline, resume=True)
    if not outcome.finished:
        raise Interrupted(f"in the training of {experiment.name}", deadline)
    write_json(folder / "machine.json", {"identity": experiment.identity, "machine": machine()})
    return outcome


def _evaluated(experiment: Experiment, data: Dataset, conditions: Conditions, deadline: Deadline) -> Figures:
    named = protocol(conditions.protocol or "", Threat.parse(conditions.threat))
    chosen = on_images_of(data, named, conditions.samples)
    name = f"{file_stem(chosen.name, conditions.threat, conditions.samples, experiment.seed)}.json"
    folder = conditions.runs / experiment.name
    fabric = conditions.hardware.fabric()
    result = stored_or_fresh(
        load(folder).network.to(fabric.device),
        data,
        chosen,
        folder / "evaluations" / name,
        name=experiment.name,
        seed=experiment.seed,
        threads=conditions.hardware.threads if fabric.device.type == "cpu" else 0,
        deadline=deadline,
    )
    return Figures(
        result.protocol,
        result.threat,
        result.samples,
        result.clean_accuracy,
        result.worst_case,
        {row.attack: result.accuracy(row.attack) for row in result.rows},
        result.verdict,
        result.seconds,
        f"evaluations/{name}",
        result.versions,
        result.machine,
    )


def _trained_on(folder: Path, experiment: Experiment) -> dict[str, str | int]:
    """The machine that finished the training; nothing if it was trained elsewhere than in a sweep."""
    try:
        content: dict[str, Any] = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(content["machine"]) if content.get("identity") == experiment.identity else {}


@lru_cache(maxsize=2)
def _data(name: str, folder: Path | None) -> Dataset:
    """A worker does many trials; it reads their data once."""
    return load_dataset(name, folder)


@contextmanager
def alone(folder: Path, deadline: Deadline) -> Iterator[None]:
    """Wait until no other process, of this sweep or of another command, is at work in a run folder; keep others out.

    Raises Interrupted if the deadline comes first.
    """
    with lock.alone(folder, deadline) as mine:
        if not mine:
            raise Interrupted(f"while another process worked in {folder}", deadline)
        yield
