"""Fashion-MNIST at the published size: the 2x2 with TSSL-BP's network, 40 epochs at the published learning rate.

Many hours on two cores, fewer with `--precision bf16-mixed` where the processor has units for bfloat16.
"""

from dataclasses import replace

from hosnn.nn.lenet import lenet_32c5_64c5_1024
from hosnn.recipes import fashion_mnist
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, trained_further
from hosnn.training.experiment import Experiment, Optimisation


def start() -> Experiment:
    """32C5-P2-64C5-P2-1024-10, LIF, trained clean for 10 epochs: what the other four start from."""
    network, optim = lenet_32c5_64c5_1024(), Optimisation(epochs=10, lr=5e-4)
    return replace(fashion_mnist.start(), name="fashion-mnist-wide-start", network=network, optim=optim)


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return trained_further(start(), epochs=30)


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
