"""CIFAR-10 with the HoSNN authors' network (45 M weights), for a GPU: LIF and TA-LIF, clean and FGSM-trained.

Batch, loss, gradient, weight decay, clipping and dropout are the authors'; they train for 200 epochs.  Augmentation is
the paper's, its Cutout grey.  Learning rate: the authors' 5e-4.  Nothing was tuned; docs/cifar10.md says what was run.
"""

from hosnn.data.augment import Cutout, InTurn, RandomCrop, RandomFlip
from hosnn.nn.convnet import paper_cifar10
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, trained_further
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.objectives import Clean, VanRossum


def start() -> Experiment:
    """128C3-256C3-P2-512C3-P2-1024C3-512C3-1024-512-10, LIF, trained clean: what the other four start from."""
    return Experiment(
        name="cifar10-start",
        data="cifar10",
        network=paper_cifar10(),
        objective=Clean(VanRossum()),
        optim=Optimisation(epochs=60, lr=5e-4),
        augmentation=InTurn((RandomCrop(), RandomFlip(), Cutout(16))),
    )


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return trained_further(start(), epochs=30)


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return fgsm_trained(lif_clean(), 2 / 255)


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images; k starts at 1/5 as in the authors' code."""
    return made_homeostatic(lif_clean(), 0.2)


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return made_homeostatic(lif_fgsm(), 0.2)


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
