"""SVHN's 2x2 with the network of `cifar10_small`, on the first 4,434 training digits: LIF and TA-LIF, clean and FGSM.

Training makes ten times as many passes over so few digits, which are cropped but not flipped.
"""

from hosnn.recipes import cifar10_small
from hosnn.recipes.variants import on_svhn_prefix
from hosnn.training.experiment import Experiment


def start() -> Experiment:
    """LIF, trained clean: what the other four start from."""
    return on_svhn_prefix(cifar10_small.start())


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return on_svhn_prefix(cifar10_small.lif_clean())


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return on_svhn_prefix(cifar10_small.lif_fgsm())


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images."""
    return on_svhn_prefix(cifar10_small.homeostatic_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return on_svhn_prefix(cifar10_small.homeostatic_fgsm())


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
