"""Fashion-MNIST: the 2x2 of LIF and TA-LIF, clean and FGSM-trained, all four from one clean LIF start.

Each pair of recipes differs in neuron only or in training only: the same start, epochs and optimiser.  Learning rate
(2e-3; tried: 5e-4, 2e-3) and k at the start of homeostasis (0.1; tried: 0.1, 0.2, 0.667) were chosen on 2,000 held-out
training images, clean and under PGD-7, in short trial runs of clean LIF and of TA-LIF; no settings were searched for
FGSM-trained LIF.
"""

from dataclasses import replace

from hosnn.nn.lenet import lenet_15c5_40c5_300
from hosnn.recipes.variants import fgsm_trained, made_homeostatic, trained_further
from hosnn.training.experiment import Experiment, LearnedThresholds, Optimisation
from hosnn.training.objectives import Clean, VanRossum


def start() -> Experiment:
    """15C5-P2-40C5-P2-300-10, LIF, trained clean: what the other four start from, and the source of the signature."""
    return Experiment(
        name="fashion-mnist-start",
        data="fashion-mnist",
        network=lenet_15c5_40c5_300(),
        objective=Clean(VanRossum()),
        optim=Optimisation(epochs=4, lr=2e-3),
    )


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return trained_further(start(), epochs=6)


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255, one perturbation per time step as in the authors' code."""
    return fgsm_trained(lif_clean(), 2 / 255)


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images."""
    return made_homeostatic(lif_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255: HoSNN."""
    return made_homeostatic(lif_fgsm())


def thresholds_fgsm() -> Experiment:
    """LIF with a learnable static threshold per neuron, trained on FGSM at 2/255: a control for homeostasis."""
    return replace(lif_fgsm(), name="fashion-mnist-thresholds-fgsm", homeostasis=LearnedThresholds())


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
