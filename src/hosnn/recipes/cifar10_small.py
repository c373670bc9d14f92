"""CIFAR-10's 2x2 with a network of 0.6 M weights, for two cores: LIF and TA-LIF, clean and FGSM-trained.

Trained in bfloat16 (`--precision bf16-mixed`) it takes less than an hour on two cores; results are measured in float32.
"""

from hosnn.data.augment import InTurn, RandomCrop, RandomFlip
from hosnn.nn.convnet import small_convnet
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, trained_further
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.objectives import Clean, VanRossum


def start() -> Experiment:
    """32C3-P2-64C3-P2-128C3-P2-256-10, LIF, trained clean: what the other four start from."""
    return Experiment(
        name="cifar10-small-start",
        data="cifar10",
        network=small_convnet(),
        objective=Clean(VanRossum()),
        optim=Optimisation(epochs=6, lr=2e-3),
        augmentation=InTurn((RandomCrop(), RandomFlip())),
    )


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
