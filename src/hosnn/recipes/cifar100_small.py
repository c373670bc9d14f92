"""CIFAR-100's 2x2 with the network and schedule of `cifar10_small`: LIF and TA-LIF, clean and FGSM-trained.

As in the authors' code for CIFAR-100, the output is not spiking and the loss is the cross-entropy of its mean current.
"""

from dataclasses import replace

from hosnn.nn.convnet import CIFAR100_MEAN, CIFAR100_STD, small_convnet
from hosnn.recipes import cifar10_small
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, on_images, trained_further
from hosnn.training.experiment import Experiment
from hosnn.training.objectives import Clean, CrossEntropy


def start() -> Experiment:
    """32C3-P2-64C3-P2-128C3-P2-256-100, LIF, trained clean: what the other four start from."""
    network = replace(small_convnet(), spiking_output=False)
    experiment = replace(cifar10_small.start(), network=network, objective=Clean(CrossEntropy()))
    return on_images(experiment, "cifar100", 100, CIFAR100_MEAN, CIFAR100_STD)


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return trained_further(start(), epochs=3)


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return fgsm_trained(lif_clean(), 2 / 255)


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images."""
    return made_homeostatic(lif_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return made_homeostatic(lif_fgsm())


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
