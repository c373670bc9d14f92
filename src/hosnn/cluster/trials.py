"""Trials of a sweep: recipes x values x seeds, each an experiment with a name of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import reduce
from itertools import product
from typing import Any

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.recipes.resolve import fitted_to, override, resolve
from hosnn.recipes.variants import with_seed
from hosnn.training.experiment import Experiment

OUTSIDE_PARENTHESES = re.compile(r",(?![^()]*\))")
RESERVED = {"seed": "give seeds with --seeds", "name": "names tell the values apart by themselves"}


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep.

    overrides  values of the grid, as path=value
    """

    recipe: str
    overrides: tuple[str, ...]
    seed: int
    experiment: Experiment


def trials(
    recipes: Sequence[str],
    settings: Sequence[str],
    grid: Sequence[str],
    seeds: Sequence[int],
    data: Dataset | None = None,
) -> list[Trial]:
    """Every recipe with every combination of the grid's values at every seed.

    settings  path=value for all trials; names do not show them
    grid      path=value,value,...; values that contain commas are in parentheses
    data      what all train on in place of the recipes' own data sets
    Raises ConfigError as `resolve` and `override` do, and for two trials that are the same or have the same name.
    """
    if not recipes:
        raise ConfigError("a sweep got no recipe; give at least one, `hosnn train` lists them")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds got {' '.join(map(str, seeds)) or 'nothing'}; expected at least one, each once")
    for setting in settings:
        path = setting.partition("=")[0].strip()
        _check_path(path, f"--set {setting}")
        if path in (text.partition("=")[0].strip() for text in grid):
            raise ConfigError(f"{path} is in --set and in --grid; leave one of them out")
    every = []
    for recipe in dict.fromkeys(recipes):
        plain = override(resolve(recipe), settings)
        if data is not None:
            plain = fitted_to(data, plain, settings)
        for values in combinations(grid):
            try:
                experiment = with_values(plain, values)
            except ConfigError as error:
                raise ConfigError(f"{recipe} with {', '.join(values)}: {error}") from error
            every += [Trial(recipe, values, seed, with_seed(experiment, seed)) for seed in seeds]
    _check_names(every)
    return every


def combinations(grid: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of one value per path; for an empty grid, one combination without values."""
    axes: dict[str, list[str]] = {}
    for text in grid:
        path, equals, values = (part.strip() for part in text.partition("="))
        listed = [value.strip() for value in OUTSIDE_PARENTHESES.split(values)]
        if not (path and equals and all(listed)):
            raise ConfigError(f"--grid got {text!r}; expected path=value,value,..., e.g. optim.lr=1e-3,2e-3")
        _check_path(path, f"--grid {text}")
        if path in axes:
            raise ConfigError(
                f"--grid got {path} twice; give all its values at once, e.g. {path}={','.join(listed)},..."
            )
        axes[path] = [f"{path}={value}" for value in listed]
    return list(product(*axes.values()))


def with_values(experiment: Experiment, values: Sequence[str]) -> Experiment:
    """The experiment with fields set, and their values in its name and in that of a start that they change.

    A start that they do not change keeps its name, so that trials share it.
    """
    changed, values_of_start = experiment, []
    for value in values:
        previous, changed = changed, override(changed, [value])
        if previous.start != changed.start:
            values_of_start.append(value.removeprefix("start."))
    start = None if experiment.start is None else with_values(experiment.start, values_of_start)
    name = experiment.name + "".join(_suffix(changed, value) for value in values)
    return replace(changed, name=name, start=start)


def starts(trials: Sequence[Trial]) -> list[Experiment]:
    """All experiments that trials start from, each once and after its own start."""
    every: dict[str, Experiment] = {}
    for trial in trials:
        every |= {start.name: start for start in reversed(list(_starts_of(trial.experiment)))}
    return list(every.values())


def _starts_of(experiment: Experiment) -> Iterator[Experiment]:
    """The experiment's start, the start of that, and so on."""
    while experiment.start is not None:
        experiment = experiment.start
        yield experiment


def _suffix(experiment: Experiment, setting: str) -> str:
    """A value as a part of a run's name, read from the experiment, so that 1e-3 and 0.001 give the same."""
    path = setting.partition("=")[0].split(".")
    value = reduce(getattr, path, experiment)
    shown_path = [*(part for part in path[:-1] if part == "start"), path[-1]]
    joint = "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "-"
    return f"-{'-'.join(shown_path)}{joint}{_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_plain, value))
    return re.sub(r"[^\w.-]+", "_", str(value.value if isinstance(value, Enum) else value))


def _check_path(path: str, option: str) -> None:
    """Raises ConfigError for a field that the sweep itself sets.  option  as on the command line, for the message"""
    advice = RESERVED.get(path.replace("start.", ""))
    if advice is not None:
        raise ConfigError(f"{option}: a sweep sets {path} itself; {advice}")


def _check_names(trials: Sequence[Trial]) -> None:
    """Raises ConfigError for two experiments in one folder, or one experiment twice."""
    identities: dict[str, str] = {}
    for experiment in (*(trial.experiment for trial in trials), *starts(trials)):
        if identities.setdefault(experiment.name, experiment.identity) != experiment.identity:
            raise ConfigError(
                f"two different experiments of this sweep would be called {experiment.name!r} and share a run folder; "
                "sweep them one after the other into different --runs folders"
            )
    names = [trial.experiment.name for trial in trials]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} occurs twice in this sweep; give every recipe and every value once")
