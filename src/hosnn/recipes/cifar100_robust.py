"""CIFAR-100, robust at 8/255: the network and training of `cifar10_robust` on CIFAR-100."""

from hosnn.nn.convnet import CIFAR100_MEAN, CIFAR100_STD
from hosnn.recipes import cifar10_robust
from hosnn.recipes.variants import on_images
from hosnn.training.experiment import Experiment


def lif() -> Experiment:
    """LIF, 8 steps, on FGSM with a random start at 8/255."""
    return _on_cifar100(cifar10_robust.lif())


def homeostatic() -> Experiment:
    """TA-LIF from the same start, around the signature of its clean images, trained further as LIF is."""
    return _on_cifar100(cifar10_robust.homeostatic())


def twin() -> Experiment:
    """The ANN twin of LIF: rectifiers in place of neurons, run once."""
    return _on_cifar100(cifar10_robust.twin())


def _on_cifar100(experiment: Experiment) -> Experiment:
    return on_images(experiment, "cifar100", 100, CIFAR100_MEAN, CIFAR100_STD)


GRID = (lif, homeostatic, twin)
