"""Recipes that train in a second or two on the embedded sample, for workers to import."""

from dataclasses import replace

from hosnn.nn.lenet import LeNet
from hosnn.training.experiment import Experiment, Homeostasis, Optimisation
from hosnn.training.objectives import Clean, VanRossum

OPTIM = Optimisation(epochs=1, batch_size=256, lr=5e-3)


def start() -> Experiment:
    """LIF, 2C5-3C5-8: what the others begin with."""
    return Experiment(
        name="tiny-start",
        data="fashion-mnist-sample",
        network=LeNet((2, 3), hidden=8),
        objective=Clean(VanRossum()),
        optim=OPTIM,
    )


def lif() -> Experiment:
    """LIF, trained on for three epochs, so that there is a middle to be killed in."""
    return replace(start(), name="tiny-lif", start=start(), optim=replace(OPTIM, epochs=3))


def homeostatic() -> Experiment:
    """The same with TA-LIF."""
    return replace(lif(), name="tiny-homeostatic", homeostasis=Homeostasis(0.1))
