"""CIFAR-10, robust at 8/255, with a network of 0.6 M weights for two cores: LIF, TA-LIF, the ANN twin to convert.

Single-step adversarial training with crop and flip.  The number of time steps matters most: with 4, attacks through
other gradient estimators than the one trained with break far more; so a probe through three chooses the epoch.
"""

from dataclasses import replace

from hosnn.data.augment import InTurn, RandomCrop, RandomFlip
from hosnn.recipes.robust_parts import adversarial, fgsm_rs, made_twin, probe, spiking_network, trained_on
from hosnn.recipes.variants import made_homeostatic
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.paired_objectives import TRADES


def start() -> Experiment:
    """32C3-P2-64C3-P2-128C3-P2-256-10, LIF, two convolutions analogue, on FGSM with a random start at 8/255."""
    network = spiking_network("32C3-P2-64C3-P2-128C3-P2-256-10", analogue_layers=2)
    return Experiment(
        name="cifar10-robust-start-lif",
        data="cifar10",
        network=network,
        objective=adversarial(),
        optim=Optimisation(epochs=10, lr=2e-3, batch_size=128, average=0.99, warmup=0.2),
        augmentation=InTurn((RandomCrop(), RandomFlip())),
        probe=probe(),
    )


def lif() -> Experiment:
    """LIF, trained further."""
    return trained_on(start(), epochs=4)


def homeostatic() -> Experiment:
    """TA-LIF from the same start, around the signature of its clean images, trained further as LIF is."""
    return made_homeostatic(lif())


def twin() -> Experiment:
    """The ANN twin of LIF: rectifiers in place of neurons, run once; trained as LIF is."""
    return made_twin(lif())


def twin_trades() -> Experiment:
    """The ANN twin on TRADES, for longer, as it costs less: less robust than `twin` (docs/robust.md)."""
    trades = replace(start(), name="cifar10-robust-trades-lif", objective=TRADES(fgsm_rs(), beta=4.0))
    return made_twin(replace(trades, optim=replace(start().optim, epochs=16)))


GRID = (lif, homeostatic, twin)
