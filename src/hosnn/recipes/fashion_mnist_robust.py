"""Fashion-MNIST, robust at 8/255: single-step adversarial training, dead zone, analogue first layer, 8 time steps.

LIF, TA-LIF and the ANN twin have the same layers, epochs and optimiser.  The recipes called `trial_...` train the
network with other objectives, each for about as many CPU seconds; `lif_32` is level with its twin in the
worst case (docs/robust.md).
"""

import math
from dataclasses import replace

from hosnn.recipes.robust_parts import adversarial, made_twin, probe, spiking_network, trained_on, with_objective
from hosnn.recipes.variants import made_homeostatic
from hosnn.spiking.state import Dynamics, Reset
from hosnn.training.experiment import Experiment, Optimisation

LOSSLESS = Dynamics(tau_membrane=math.inf, tau_synapse=1.0, reset=Reset.SOFT)
"""Integrate-and-fire neurons, which lose nothing of their input: no leak, no synaptic filter, soft reset."""


def start() -> Experiment:
    """15C5-P2-40C5-P2-300-10, LIF, first convolution analogue, on FGSM with a random start at 8/255."""
    network = spiking_network(
        "15C5-P2-40C5-P2-300-10",
        image=(1, 28, 28),
        mean=(0.2860,),
        std=(0.3530,),
        padded=False,
        dead_zone=10 / 255,
    )
    return Experiment(
        name="fashion-mnist-robust-start-lif",
        data="fashion-mnist",
        network=network,
        objective=adversarial(),
        optim=Optimisation(epochs=5, lr=2e-3),
        probe=probe(),
    )


def lif() -> Experiment:
    """LIF, trained further."""
    return trained_on(start(), epochs=2)


def homeostatic() -> Experiment:
    """TA-LIF from the same start, around the signature of its clean images, trained further as LIF is."""
    return made_homeostatic(lif())


def signature_kept() -> Experiment:
    """TA-LIF trained for two epochs more, around the signature of the LIF network as before."""
    return replace(trained_on(homeostatic(), epochs=2), name="fashion-mnist-robust-signature-kept", homeostasis=None)


def signature_refreshed() -> Experiment:
    """The same, around the signature of its own clean images, k beginning anew."""
    kept = signature_kept()
    return replace(kept, name="fashion-mnist-robust-signature-refreshed", homeostasis=homeostatic().homeostasis)


def twin() -> Experiment:
    """The ANN twin of LIF: rectifiers in place of neurons, run once; trained as LIF is."""
    return made_twin(lif())


def start_32() -> Experiment:
    """LIF over 32 time steps, both convolutions analogue.

    Neurons are `LOSSLESS`.  With thresholds of 3 a rate saturates at three times the input that it would with 1.
    """
    before = start()
    dynamics = replace(LOSSLESS, threshold=3.0)
    network = replace(before.network, analogue_layers=2, steps=32, dynamics=dynamics)  # type: ignore[type-var]
    return replace(before, name="fashion-mnist-robust-32-start-lif", network=network)


def lif_32() -> Experiment:
    """LIF over 32 time steps, trained further."""
    return trained_on(start_32(), epochs=2)


def twin_32() -> Experiment:
    """The ANN twin of it, which is that of `lif` too, since it has no time steps; trained again beside `lif_32`."""
    return made_twin(lif_32())


def trial_published() -> Experiment:
    """HoSNN's objective, FGSM at 2/255, on the robust network."""
    return _trial("published", epochs=14)


def trial_fgsm_rs() -> Experiment:
    """FGSM with a random start at 8/255."""
    return _trial("fgsm_rs", epochs=14)


def trial_pgd() -> Experiment:
    """PGD-7 at 8/255."""
    return _trial("pgd", epochs=4)


def trial_free() -> Experiment:
    """Free adversarial training at 8/255, 4 replays."""
    return _trial("free", epochs=6)


def trial_trades() -> Experiment:
    """TRADES, beta 6."""
    return _trial("trades", epochs=2)


def trial_mart() -> Experiment:
    """MART, beta 5."""
    return _trial("mart", epochs=2)


def trial_sparse_gradients() -> Experiment:
    """FGSM with a random start, and a penalty on the label's logit along its gradient."""
    return _trial("sparse_gradients", epochs=8)


def trial_orthogonal() -> Experiment:
    """FGSM with a random start, and weights kept near orthogonal (SNN-RAT)."""
    return _trial("orthogonal", epochs=14)


def trial_perturbed_membranes() -> Experiment:
    """FGSM with a random start, and a penalty on how far it moves the last membranes (MPPD-TV-l1)."""
    return _trial("perturbed_membranes", epochs=10)


def trial_near_threshold() -> Experiment:
    """FGSM with a random start, and a penalty on membranes near their thresholds (after MPD-SGR)."""
    return _trial("near_threshold", epochs=10)


def trial_fgsm_rs_further() -> Experiment:
    """FGSM with a random start, the last four epochs anew at half the learning rate."""
    return _trial_further("fgsm_rs", epochs=14)


def trial_fgsm_rs_homeostatic() -> Experiment:
    """The same, TA-LIF in the last four epochs."""
    return made_homeostatic(trial_fgsm_rs_further())


def trial_pgd_further() -> Experiment:
    """PGD-7, the last of the four epochs anew at half the learning rate."""
    return _trial_further("pgd", epochs=4)


def trial_pgd_homeostatic() -> Experiment:
    """The same, TA-LIF in the last epoch."""
    return made_homeostatic(trial_pgd_further())


def _trial(objective: str, epochs: int) -> Experiment:
    return with_objective(replace(start(), name="fashion-mnist-trial"), objective, epochs)


def _trial_further(objective: str, epochs: int) -> Experiment:
    """LIF, trained further from its best weights for two sevenths of the epochs, at least one."""
    further = max(1, round(epochs * 2 / 7))
    trial = _trial(objective, epochs - further)
    return trained_on(replace(trial, name=f"{trial.name}-start-lif"), further)


GRID = (lif, homeostatic, twin)
GRID_32 = (lif_32, twin_32)
