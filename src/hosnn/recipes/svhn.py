"""SVHN with the HoSNN authors' CIFAR-10 network, for a GPU: the 2x2 of LIF and TA-LIF, clean and FGSM-trained.

SVHN is not in the authors' code: network, optimiser and k are those of CIFAR-10, Cutout is the paper's (20), and digits
are not flipped.
"""

from dataclasses import replace

from hosnn.data.augment import Cutout, InTurn, RandomCrop
from hosnn.nn.convnet import SVHN_MEAN, SVHN_STD, paper_cifar10
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, trained_further
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.objectives import Clean, VanRossum


def start() -> Experiment:
    """128C3-256C3-P2-512C3-P2-1024C3-512C3-1024-512-10, LIF, trained clean: what the other four start from."""
    return Experiment(
        name="svhn-start",
        data="svhn",
        network=replace(paper_cifar10(), mean=SVHN_MEAN, std=SVHN_STD),
        objective=Clean(VanRossum()),
        optim=Optimisation(epochs=40, lr=5e-4),
        augmentation=InTurn((RandomCrop(), Cutout(20))),
    )


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return trained_further(start(), epochs=20)


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return fgsm_trained(lif_clean(), 2 / 255)


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images; k starts at 1/5 as in the authors' code for CIFAR."""
    return made_homeostatic(lif_clean(), 0.2)


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return made_homeostatic(lif_fgsm(), 0.2)


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
