"""The Fashion-MNIST 2x2 on the embedded sample, small enough for minutes on two cores."""

from dataclasses import replace

from hosnn.recipes import fashion_mnist
from hosnn.recipes.variants import renamed, with_data, with_epochs
from hosnn.training.experiment import Experiment


def _small(experiment: Experiment) -> Experiment:
    small = with_epochs(with_data(renamed(experiment, "fashion-mnist", "demo"), "fashion-mnist-sample"), 4)
    return replace(small, optim=replace(small.optim, epochs=3))


def lif_clean() -> Experiment:
    """LIF, trained on clean images."""
    return _small(fashion_mnist.lif_clean())


def lif_fgsm() -> Experiment:
    """LIF, trained on FGSM at 2/255."""
    return _small(fashion_mnist.lif_fgsm())


def homeostatic_clean() -> Experiment:
    """TA-LIF, trained on clean images."""
    return _small(fashion_mnist.homeostatic_clean())


def homeostatic_fgsm() -> Experiment:
    """TA-LIF, trained on FGSM at 2/255."""
    return _small(fashion_mnist.homeostatic_fgsm())


GRID = (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)
