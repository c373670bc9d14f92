"""Changes to any recipe's experiment and to everything it starts from."""

import re
from dataclasses import replace
from typing import Any

from hosnn.data import Dataset
from hosnn.data.augment import RandomCrop
from hosnn.estimators import OnFrames, OnTraces, TraceCrossEntropy
from hosnn.nn.blueprint import Blueprint
from hosnn.nn.convnet import SVHN_MEAN, SVHN_STD, ConvNet
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import fgsm
from hosnn.robustness.threats import Threat
from hosnn.runtime import check_seed
from hosnn.training.experiment import Experiment, Homeostasis
from hosnn.training.objectives import Adversarial, Objective, VanRossum


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The same experiment, and its start, with another seed; seeds other than 0 are part of the name."""
    check_seed(seed)
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


def on_images(
    experiment: Experiment, data: str, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Experiment:
    """The same experiment, and its start, with a `ConvNet` for a data set of other classes; names begin with `data`.

    mean, std  per channel, of the data set's pixels in [0, 1]
    """
    network = experiment.network
    assert isinstance(network, ConvNet)
    body, _, _ = network.structure.rpartition("-")
    changed = replace(network, structure=f"{body}-{classes}", mean=mean, std=std)
    start = None if experiment.start is None else on_images(experiment.start, data, classes, mean, std)
    name = experiment.name.replace(experiment.data, data, 1)
    return replace(experiment, name=name, data=data, network=changed, start=start)


def on_svhn_prefix(experiment: Experiment) -> Experiment:
    """An experiment on CIFAR-10, and its start, on the first 4,434 training digits of SVHN: digits are cropped but not
    flipped, and there are ten epochs for one."""
    return _for_few_digits(on_images(experiment, "svhn-prefix", 10, SVHN_MEAN, SVHN_STD))


def _for_few_digits(experiment: Experiment) -> Experiment:
    start = None if experiment.start is None else _for_few_digits(experiment.start)
    optim = replace(experiment.optim, epochs=10 * experiment.optim.epochs)
    return replace(experiment, start=start, optim=optim, augmentation=RandomCrop())


def with_dataset(experiment: Experiment, data: Dataset) -> Experiment:
    """The same experiment, and its start, on another data set, the network fitted to it; names get the data's name.

    Fitted are the image's shape, mean and standard deviation per channel of the training images (to 4 digits), the
    number of classes, and for frames the number of time steps with the spikes that losses ask for.
    Raises ConfigError if the network cannot take such images.
    """
    start = None if experiment.start is None else with_dataset(experiment.start, data)
    suffix = re.sub(r"[^\w.-]+", "-", data.name.removeprefix("own:"))
    return replace(
        experiment,
        name=f"{experiment.name}-{suffix}",
        data=data.name,
        network=fitted(experiment.network, data),
        objective=_over_steps(experiment.objective, data.steps),
        start=start,
    )


def fitted(network: Blueprint, data: Dataset) -> Blueprint:
    """The blueprint for a data set's images and classes.  Raises ConfigError if it cannot take them."""
    mean, std = data.pixel_statistics()
    changes: dict[str, Any] = {"image": data.image_shape, "mean": mean, "std": std}
    if data.steps is not None:
        changes["steps"] = data.steps
    if isinstance(network, ConvNet):
        body, _, _ = network.structure.rpartition("-")
        changes["structure"] = f"{body}-{data.num_classes}"
    else:
        changes["classes"] = data.num_classes
    return replace(network, **changes)  # type: ignore[type-var]


def _over_steps(objective: Objective, steps: int | None) -> Objective:
    """The objective for another number of time steps: desired spikes at all steps but the first."""
    if steps is None or not isinstance(objective.loss, VanRossum):
        return objective
    loss = replace(objective.loss, spikes=(0, *[1] * (steps - 1)))
    return replace(objective, loss=loss)  # type: ignore[type-var]


def with_epochs(experiment: Experiment, epochs: int) -> Experiment:
    """The same experiment, and its start, each for `epochs` epochs."""
    start = None if experiment.start is None else with_epochs(experiment.start, epochs)
    return replace(experiment, optim=replace(experiment.optim, epochs=epochs), start=start)


def trained_further(start: Experiment, epochs: int) -> Experiment:
    """`start` trained in the same way for `epochs` more epochs, from its best weights.

    x-start becomes x-lif-clean.
    """
    name = f"{start.name.removesuffix('-start')}-lif-clean"
    return replace(start, name=name, start=start, optim=replace(start.optim, epochs=epochs))


def fgsm_trained(experiment: Experiment, eps: float) -> Experiment:
    """The same experiment on FGSM images at `eps`, one perturbation per time step, as the HoSNN authors train.

    x-clean becomes x-fgsm.
    """
    threat = Threat(Linf(eps), per_step=True)
    attack = OnFrames(OnTraces(fgsm(threat, loss=TraceCrossEntropy())))
    objective = Adversarial(attack, experiment.objective.loss, craft_in="eval")
    return replace(experiment, name=f"{experiment.name.removesuffix('-clean')}-fgsm", objective=objective)


def made_homeostatic(experiment: Experiment, adaptation: float = 0.1) -> Experiment:
    """The same experiment with TA-LIF in place of its start's LIF, using the start's own signature.

    x-lif-y becomes x-homeostatic-y.
    """
    before, _, after = experiment.name.partition("-lif")
    name = f"{before}-homeostatic{after}"
    return replace(experiment, name=name, homeostasis=Homeostasis(adaptation=adaptation))
