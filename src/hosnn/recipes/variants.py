"""Edits that apply to any recipe's result and to everything it starts from."""

from dataclasses import replace

from hosnn.training.experiment import Experiment


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The same experiment, and its start, at another seed; seeds other than 0 show in the name."""
    suffix = f"-seed{seed}" if seed else ""
    start = None if experiment.start is None else with_seed(experiment.start, seed)
    return replace(experiment, name=experiment.name + suffix, seed=seed, start=start)


def renamed(experiment: Experiment, old: str, new: str) -> Experiment:
    """The same experiment, and its start, with `old` replaced by `new` in their names."""
    start = None if experiment.start is None else renamed(experiment.start, old, new)
    return replace(experiment, name=experiment.name.replace(old, new), start=start)


def with_data(experiment: Experiment, data: str) -> Experiment:
    """The same experiment, and its start, on another data set."""
    start = None if experiment.start is None else with_data(experiment.start, data)
    return replace(experiment, data=data, start=start)


def with_epochs(experiment: Experiment, epochs: int) -> Experiment:
    """The same experiment, and its start, each for `epochs` epochs."""
    start = None if experiment.start is None else with_epochs(experiment.start, epochs)
    return replace(experiment, optim=replace(experiment.optim, epochs=epochs), start=start)
