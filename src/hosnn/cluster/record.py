"""A sweep as a value: every trial once, with what came of it; its file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hosnn.cluster.trials import Trial
from hosnn.errors import ConfigError
from hosnn.files import read_json, write_json
from hosnn.results.check import Severity

FORMAT = "hosnn-sweep-1"

State = Literal["finished", "failed", "waiting"]


@dataclass(frozen=True)
class Figures:
    """What an evaluation came to, accuracies as fractions.

    worst     share of images that no attack won
    accuracy  by attack; in a cascade after it and all before it
    verdict   the worst severity of its checks
    file      where all of it is, in the run folder
    """

    protocol: str
    threat: str
    samples: int
    clean: float
    worst: float
    accuracy: Mapping[str, float]
    verdict: Severity
    seconds: float
    file: str
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]


@dataclass(frozen=True)
class Result:
    """What a finished trial came to.

    validation  best validation accuracy, on images as the objective sees them
    seconds     wall time of its training, what it starts from not included
    versions    of what it was trained with; machine: empty if it was trained elsewhere than in a sweep
    """

    validation: float
    steps: int
    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    evaluation: Figures | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A trial with what came of it.

    state  finished, failed (then `error` says why) or waiting: not begun, under way or interrupted
    """

    recipe: str
    overrides: tuple[str, ...]
    seed: int
    name: str
    identity: str
    folder: str
    state: State = "waiting"
    error: str = ""
    result: Result | None = None


@dataclass(frozen=True)
class Sweep:
    """All trials of a sweep.

    settings  that all trials share, as path=value; grid: the values, as path=value,value,...
    protocol  that trials are evaluated under, None if they are trained only; threat and samples (None: its own) of it
    """

    recipes: tuple[str, ...]
    settings: tuple[str, ...]
    grid: tuple[str, ...]
    seeds: tuple[int, ...]
    protocol: str | None
    threat: str
    samples: int | None
    trials: tuple[TrialRecord, ...] = ()

    def of(self, found: Sequence[Trial], runs: Path) -> "Sweep":
        """The sweep with these trials, all waiting."""
        entries = (
            TrialRecord(
                trial.recipe,
                trial.overrides,
                trial.seed,
                trial.experiment.name,
                trial.experiment.identity,
                str(runs / trial.experiment.name),
            )
            for trial in found
        )
        return replace(self, trials=tuple(entries))

    def with_entry(self, name: str, state: State, error: str = "", result: Result | None = None) -> "Sweep":
        """The sweep with a trial's outcome set."""
        changed = (
            replace(entry, state=state, error=error, result=result) if entry.name == name else entry
            for entry in self.trials
        )
        return replace(self, trials=tuple(changed))

    def after(self, before: "Sweep") -> "Sweep":
        """The sweep with what an earlier call found finished, until it is found again."""
        if (before.protocol, before.threat, before.samples) != (self.protocol, self.threat, self.samples):
            return self
        known = {(entry.identity, entry.folder): entry for entry in before.trials if entry.state == "finished"}
        return replace(self, trials=tuple(known.get((entry.identity, entry.folder), entry) for entry in self.trials))

    def lacks(self, before: "Sweep") -> tuple[str, ...]:
        """Names of trials that an earlier call finished, and that are not of this sweep."""
        own = {(entry.identity, entry.folder) for entry in self.trials}
        finished = (entry for entry in before.trials if entry.state == "finished")
        return tuple(entry.name for entry in finished if (entry.identity, entry.folder) not in own)

    def count(self, state: State) -> int:
        return sum(entry.state == state for entry in self.trials)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Sweep":
        """The inverse of `to_json`.  Raises ConfigError for another format."""
        form = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        if form != FORMAT:
            raise ConfigError(f"a sweep got format {form!r}; expected {FORMAT!r}")
        given = {key: value for key, value in content.items() if key != "format"}
        for key in ("recipes", "settings", "grid", "seeds"):
            given[key] = tuple(given[key])
        given["trials"] = tuple(_entry(entry) for entry in given["trials"])
        return cls(**given)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Sweep":
        """Read what `save` wrote.  Raises ConfigError if it is something else."""
        return read_json(path, "sweep", cls.from_json, "; choose another --out, or remove it")


def _entry(content: Mapping[str, Any]) -> TrialRecord:
    result = content["result"]
    if result is not None:
        figures = result["evaluation"]
        result = Result(**{**result, "evaluation": None if figures is None else Figures(**figures)})
    return TrialRecord(**{**content, "overrides": tuple(content["overrides"]), "result": result})
