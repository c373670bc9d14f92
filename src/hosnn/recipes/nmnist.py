"""N-MNIST, event data: a small LIF network and its TA-LIF twin, trained clean and on FGSM of the frames.

Frames of 10 equal time spans; each frame has its own perturbation, for the frames are the input.
"""

from dataclasses import replace

from hosnn.nn.convnet import ConvNet
from hosnn.nn.normalisation import Norm
from hosnn.recipes.variants import made_homeostatic, trained_further
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import fgsm
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.objectives import Adversarial, Clean, CrossEntropy

STEPS = 10


def start() -> Experiment:
    """12C5-P2-32C5-P2-100-10, LIF, trained clean on the first 900 training recordings."""
    network = ConvNet(
        "12C5-P2-32C5-P2-100-10",
        image=(2, 34, 34),
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        steps=STEPS,
        norm=Norm.NONE,
        weight_scale=5.0,
        rule=bptt(),
        spiking_output=False,
    )
    return Experiment(
        name="nmnist-start",
        data="nmnist-small",
        network=network,
        objective=Clean(CrossEntropy()),
        optim=Optimisation(epochs=10, batch_size=20, lr=2e-3),
    )


def lif_clean() -> Experiment:
    """LIF, trained on clean recordings."""
    return trained_further(start(), epochs=10)


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255 of the frames."""
    attack = fgsm(Threat(Linf(2 / 255)))
    return replace(lif_clean(), name="nmnist-lif-fgsm", objective=Adversarial(attack, CrossEntropy(), craft_in="eval"))


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean recordings."""
    return made_homeostatic(lif_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255 of the frames."""
    return made_homeostatic(lif_fgsm())


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
