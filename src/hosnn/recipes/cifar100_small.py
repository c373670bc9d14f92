"""CIFAR-100's 2x2 with the network and training of `cifar10_small`: LIF and TA-LIF, clean and FGSM-trained."""

from hosnn.nn.convnet import CIFAR100_MEAN, CIFAR100_STD
from hosnn.recipes import cifar10_small
from hosnn.recipes.variants import on_images
from hosnn.training.experiment import Experiment


def start() -> Experiment:
    """LIF, trained clean: what the other four start from."""
    return _on_cifar100(cifar10_small.start())


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return _on_cifar100(cifar10_small.lif_clean())


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return _on_cifar100(cifar10_small.lif_fgsm())


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images."""
    return _on_cifar100(cifar10_small.homeostatic_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return _on_cifar100(cifar10_small.homeostatic_fgsm())


def _on_cifar100(experiment: Experiment) -> Experiment:
    return on_images(experiment, "cifar100", 100, CIFAR100_MEAN, CIFAR100_STD)


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
