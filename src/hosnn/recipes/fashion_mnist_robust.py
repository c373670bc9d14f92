"""Fashion-MNIST, robust at 8/255: single-step adversarial training, dead zone, analogue first layer, 8 time steps.

LIF, TA-LIF and the ANN twin have the same layers, epochs and optimiser.  The recipes called `trial_...` train the
network with other objectives, each for about as many CPU seconds (docs/robust.md).
"""

from dataclasses import replace

from hosnn.recipes.robust_parts import adversarial, made_twin, probe, spiking_network, trained_on, with_objective
from hosnn.recipes.variants import made_homeostatic
from hosnn.training.experiment import Experiment, Optimisation


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


def _trial(objective: str, epochs: int) -> Experiment:
    return with_objective(replace(start(), name="fashion-mnist-trial"), objective, epochs)


GRID = (lif, homeostatic, twin)
