"""What each part of the robust Fashion-MNIST network contributes: the network and training of `fashion_mnist_robust`,
changed in one part, from initial weights for seven epochs (docs/robust.md)."""

from dataclasses import replace
from typing import Any

from hosnn.nn.convnet import ConvNet
from hosnn.recipes import fashion_mnist_robust
from hosnn.recipes.fashion_mnist_robust import LOSSLESS
from hosnn.recipes.robust_parts import fgsm_rs, made_twin, trained_on
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.spiking.state import Dynamics, Reset
from hosnn.training.experiment import Experiment, Homeostasis
from hosnn.training.objectives import Adversarial

EPOCHS, FURTHER = 7, 2
"""Epochs from initial weights, and of what is trained further from there."""


def reference() -> Experiment:
    """Nothing changed: first convolution analogue, dead zone, 8 time steps, FGSM with a random start at 8/255."""
    return _named(fashion_mnist_robust.start(), "reference")


def fully_spiking() -> Experiment:
    """No analogue layer: spikes from the first convolution on."""
    return _with_network("fully-spiking", analogue_layers=0)


def two_analogue() -> Experiment:
    """Both convolutions analogue: spikes in the hidden dense layer only."""
    return _with_network("two-analogue", analogue_layers=2)


def two_analogue_32() -> Experiment:
    """Both convolutions analogue, 32 time steps of integrate-and-fire neurons with a soft reset."""
    return _with_network("two-analogue-32", analogue_layers=2, steps=32, dynamics=LOSSLESS)


def two_analogue_32_high() -> Experiment:
    """As `two_analogue_32`, with thresholds of 3, so that rates saturate later."""
    return _named(fashion_mnist_robust.start_32(), "two-analogue-32-high")


def twin() -> Experiment:
    """The ANN twin: rectifiers in place of all neurons, run once."""
    return replace(made_twin(reference()), name=_name("twin"))


def no_dead_zone() -> Experiment:
    """Pixels as they are."""
    return _with_network("no-dead-zone", dead_zone=0.0)


def steps_4() -> Experiment:
    """4 time steps."""
    return _with_network("steps-4", steps=4)


def steps_16() -> Experiment:
    """16 time steps."""
    return _with_network("steps-16", steps=16)


def slow_synapse() -> Experiment:
    """A synaptic time constant of 3 steps in place of 1.5."""
    return _with_dynamics("slow-synapse", tau_synapse=3.0)


def soft_reset() -> Experiment:
    """A spike takes the threshold off the membrane and leaves the rest."""
    return _with_dynamics("soft-reset", reset=Reset.SOFT)


def integrate_and_fire() -> Experiment:
    """No leak, no synaptic filter, soft reset: as after a conversion."""
    return _with_network("integrate-and-fire", dynamics=LOSSLESS)


def radius_4() -> Experiment:
    """Trained at 4/255."""
    return _at_radius(4)


def radius_12() -> Experiment:
    """Trained at 12/255."""
    return _at_radius(12)


def further() -> Experiment:
    """LIF, trained for two epochs more: what the three with homeostasis are compared with."""
    return replace(trained_on(reference(), FURTHER), name=_name("further"))


def adaptation_weak() -> Experiment:
    """TA-LIF, k = 0.02 in the beginning, trained for two epochs more."""
    return _homeostatic("weak", 0.02)


def adaptation() -> Experiment:
    """TA-LIF, k = 0.1 in the beginning, trained for two epochs more."""
    return _homeostatic("usual", 0.1)


def adaptation_strong() -> Experiment:
    """TA-LIF, k = 0.5 in the beginning, trained for two epochs more."""
    return _homeostatic("strong", 0.5)


def _name(change: str) -> str:
    return f"fashion-mnist-ablation-{change}"


def _named(experiment: Experiment, change: str) -> Experiment:
    return replace(experiment, name=_name(change), optim=replace(experiment.optim, epochs=EPOCHS))


def _with_network(change: str, **settings: Any) -> Experiment:
    experiment = _named(fashion_mnist_robust.start(), change)
    return replace(experiment, network=replace(experiment.network, **settings))  # type: ignore[type-var]


def _with_dynamics(change: str, **settings: Any) -> Experiment:
    network = fashion_mnist_robust.start().network
    assert isinstance(network, ConvNet)
    dynamics: Dynamics = replace(network.dynamics, **settings)
    return _with_network(change, dynamics=dynamics)


def _at_radius(levels: int) -> Experiment:
    experiment = _named(fashion_mnist_robust.start(), f"radius-{levels}")
    attack = fgsm_rs(DEFAULT_THREAT.with_eps(levels / 255))
    objective = experiment.objective
    assert isinstance(objective, Adversarial)
    return replace(experiment, objective=replace(objective, attack=attack))


def _homeostatic(strength: str, k: float) -> Experiment:
    return replace(further(), name=_name(f"adaptation-{strength}"), homeostasis=Homeostasis(adaptation=k))
