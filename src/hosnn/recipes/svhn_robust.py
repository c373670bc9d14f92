"""SVHN, robust at 8/255: the network and training of `cifar10_robust` on the first 4,434 training digits."""

from hosnn.recipes import cifar10_robust
from hosnn.recipes.variants import on_svhn_prefix
from hosnn.training.experiment import Experiment


def lif() -> Experiment:
    """LIF, 8 steps, on FGSM with a random start at 8/255."""
    return on_svhn_prefix(cifar10_robust.lif())


def homeostatic() -> Experiment:
    """TA-LIF from the same start, around the signature of its clean images, trained further as LIF is."""
    return on_svhn_prefix(cifar10_robust.homeostatic())


def twin() -> Experiment:
    """The ANN twin of LIF: rectifiers in place of neurons, run once."""
    return on_svhn_prefix(cifar10_robust.twin())


GRID = (lif, homeostatic, twin)
