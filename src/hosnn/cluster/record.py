"""A sweep as a value: every trial once, with its outcome; its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from hosnn.cluster.trials import Trial
from hosnn.results.check import Verdict
from hosnn.results.document import Amount, Count, Document, Fraction, Integer, Machine, Number, Versions

State = Literal["finished", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """The main numbers of an evaluation; accuracies are fractions of 1."""

    protocol: str
    """Name of the protocol."""
    threat: str
    """What the attacker may do."""
    samples: Count
    """Number of images."""
    clean: Fraction
    """Accuracy without an attack."""
    worst: Fraction
    """Share of images that are right when clean and after every attack."""
    accuracy: Mapping[str, Fraction]
    """Accuracy by attack; in a cascade after it and all before it."""
    verdict: Verdict
    """The worst severity of its checks; none: nothing was checked."""
    seconds: Amount
    """Its wall time."""
    file: str
    """The file with the whole evaluation, in the run folder."""
    versions: Versions
    """Versions of the software that made it."""
    machine: Machine
    """The hardware."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a finished trial measured."""

    validation: Number
    """Best validation accuracy, on adversarial images if the objective has an attack."""
    steps: Count
    """Steps of the optimiser."""
    seconds: Amount
    """Wall time of its training, without that of its start."""
    cpu_seconds: Amount = 0.0
    """Processor time of the same, attacks and validation included; 0 if it was not recorded."""
    versions: Versions
    """Versions of the software that trained it."""
    machine: Machine
    """The hardware; empty if it was not trained in a sweep."""
    evaluation: EvaluationSummary | None = None
    """None if trials are only trained."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial with its outcome."""

    recipe: str
    """Name of the recipe."""
    overrides: tuple[str, ...]
    """Values of the grid, as path=value."""
    seed: Integer
    """Seed of the experiment."""
    name: str
    """Name of the experiment."""
    identity: str
    """SHA-256 of the experiment's settings."""
    folder: str
    """Its run folder."""
    state: State = "waiting"
    """waiting: not begun, running or interrupted; failed: `error` says why."""
    error: str = ""
    """Why it failed."""
    result: TrialResult | None = None
    """None unless it is finished."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Document):
    """All trials of a sweep."""

    FORMAT: ClassVar[str] = "hosnn-sweep-1"
    KIND: ClassVar[str] = "sweep"
    ADVICE: ClassVar[str] = "; choose another --out, or remove it"

    recipes: tuple[str, ...]
    """Names of the recipes."""
    settings: tuple[str, ...]
    """Fields set in all trials, as path=value."""
    grid: tuple[str, ...]
    """Fields in which trials differ, as path=value,value,..."""
    seeds: tuple[Integer, ...]
    """Seeds of each combination."""
    protocol: str | None
    """The protocol that trials are evaluated under; None: they are only trained."""
    threat: str
    """The threat of the evaluations."""
    samples: Count | None
    """Images per evaluation; None: the protocol's own number."""
    split: str = "test"
    """Images of the evaluations: test, or validation."""
    trials: tuple[TrialRecord, ...] = ()
    """In the order of recipes, grid and seeds."""

    def with_trials(self, trials: Sequence[Trial], runs: Path) -> "Sweep":
        """The sweep with these trials, all waiting."""
        records = (
            TrialRecord(
                recipe=trial.recipe,
                overrides=trial.overrides,
                seed=trial.seed,
                name=trial.experiment.name,
                identity=trial.experiment.identity,
                folder=str(runs / trial.experiment.name),
            )
            for trial in trials
        )
        return replace(self, trials=tuple(records))

    def with_outcome(self, name: str, state: State, error: str = "", result: TrialResult | None = None) -> "Sweep":
        """The sweep with the outcome of the trial of this name."""
        changed = (
            replace(trial, state=state, error=error, result=result) if trial.name == name else trial
            for trial in self.trials
        )
        return replace(self, trials=tuple(changed))

    def is_finished(self, name: str) -> bool:
        return any(trial.name == name and trial.state == "finished" for trial in self.trials)

    def measures_as(self, other: "Sweep") -> bool:
        """Whether both evaluate trials in the same way."""
        one, another = ((sweep.protocol, sweep.threat, sweep.samples, sweep.split) for sweep in (self, other))
        return one == another

    def resumed(self, earlier: "Sweep") -> "Sweep":
        """The sweep with the trials that an earlier call finished, if it evaluated them in the same way."""
        if not self.measures_as(earlier):
            return self
        finished = {_key(trial): trial for trial in earlier.trials if trial.state == "finished"}
        return replace(self, trials=tuple(finished.get(_key(trial), trial) for trial in self.trials))

    def missing(self, earlier: "Sweep") -> tuple[str, ...]:
        """Names of trials that an earlier call finished and that are not in this sweep."""
        own = {_key(trial) for trial in self.trials}
        return tuple(trial.name for trial in earlier.trials if trial.state == "finished" and _key(trial) not in own)

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)


def _key(trial: TrialRecord) -> tuple[str, str]:
    """What makes two trials the same: settings, and where they are trained."""
    return trial.identity, trial.folder
