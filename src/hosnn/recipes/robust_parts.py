"""What robust recipes have in common: objectives at the published settings, a probe that chooses the epoch."""

from dataclasses import replace
from typing import Any

from hosnn.estimators import AdaptiveSharpness, Through
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.robustness.apgd import APGD
from hosnn.robustness.losses import margin
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import PiecewiseLinear, Sigmoid
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.free_objective import FreeAdversarial
from hosnn.training.membrane_objectives import NearThreshold, PerturbedMembranes
from hosnn.training.objectives import Adversarial, CrossEntropy, Objective
from hosnn.training.paired_objectives import MART, TRADES, Orthogonal, SparseGradients, near_clean
from hosnn.training.probe import Probe


def fgsm_rs(threat: Threat = DEFAULT_THREAT) -> PGD:
    """FGSM from a random point of the ball, with a step of 1.25 eps (Wong et al. 2020)."""
    return PGD(threat, steps=1, step_size=1.25, keep_best=False)


def pgd(threat: Threat = DEFAULT_THREAT, steps: int = 7) -> PGD:
    """PGD with steps of eps/4 from a random point of the ball (Madry et al. 2018: 7 steps of 2/255 at 8/255)."""
    return PGD(threat, steps=steps, step_size=0.25, keep_best=False)


def probe(images: int = 500) -> Probe:
    """Three short attacks that differ in the gradient estimator: of a network with few time steps the sharp one breaks
    most images, of one with many the smooth ones."""
    return Probe(
        (
            Through(AdaptiveSharpness(), SAPGD(DEFAULT_THREAT, 10, loss=margin)),
            Through(bptt(Sigmoid(0.1)), SAPGD(DEFAULT_THREAT, 20, loss=margin)),
            Through(bptt(PiecewiseLinear(0.5)), APGD(DEFAULT_THREAT, 10, loss=margin)),
        ),
        images,
    )


def probe_of_twin(images: int = 500) -> Probe:
    """As long attacks on a network without spikes, through its own gradient."""
    return Probe((SAPGD(DEFAULT_THREAT, 20, loss=margin), APGD(DEFAULT_THREAT, 10, loss=margin)), images)


def adversarial() -> Adversarial:
    """FGSM-RS: single-step adversarial training at 8/255."""
    return Adversarial(fgsm_rs(), CrossEntropy(), craft_in="eval")


def objectives() -> dict[str, Objective]:
    """The objectives that are compared, each at its published setting but all at 8/255; `published` is HoSNN's own,
    FGSM at 2/255, here with one perturbation for all time steps; `free` replays 4 times, as on ImageNet."""
    weak = replace(DEFAULT_THREAT.with_eps(2 / 255))
    cross_entropy = CrossEntropy()
    return {
        "published": Adversarial(fgsm(weak), cross_entropy, craft_in="eval"),
        "fgsm_rs": adversarial(),
        "pgd": Adversarial(pgd(), cross_entropy, craft_in="eval"),
        "free": FreeAdversarial(DEFAULT_THREAT, cross_entropy, replays=4),
        "trades": TRADES(replace(pgd(steps=10), start=near_clean)),
        "mart": MART(pgd(steps=10), cross_entropy, craft_in="eval"),
        "sparse_gradients": SparseGradients(fgsm_rs(), cross_entropy, craft_in="eval"),
        "orthogonal": Orthogonal(fgsm_rs(), cross_entropy, craft_in="eval"),
        "near_threshold": NearThreshold(fgsm_rs(), cross_entropy, craft_in="eval"),
        "perturbed_membranes": PerturbedMembranes(fgsm_rs(), cross_entropy, craft_in="eval"),
    }


def spiking_network(structure: str, analogue_layers: int = 1, **settings: Any) -> ConvNet:
    """A network of 8 time steps, the first convolutions analogue, logits mean currents, through full BPTT.

    settings  further fields of `ConvNet`
    """
    return ConvNet(
        structure,
        steps=8,
        dropout=0.0,
        pool_gain=0.25,
        weight_scale=1.0,
        dynamics=Dynamics(tau_synapse=1.5),
        rule=bptt(),
        spiking_output=False,
        analogue_layers=analogue_layers,
        **settings,
    )


def trained_on(start: Experiment, epochs: int) -> Experiment:
    """The start trained further from its best weights, at half its learning rate.  x-start-lif becomes x-lif, and
    another name x-further."""
    optim = replace(start.optim, epochs=epochs, lr=start.optim.lr / 2)
    name = start.name.replace("-start", "") if "-start" in start.name else f"{start.name}-further"
    return replace(start, name=name, start=start, optim=optim)


def made_twin(experiment: Experiment) -> Experiment:
    """The same experiment, and its start, with the ANN twin of the network.  x-lif becomes x-twin."""
    network = experiment.network
    assert isinstance(network, ConvNet)
    return replace(
        experiment,
        name=f"{experiment.name.removesuffix('-lif')}-twin",
        network=replace(network, twin=Twin.RELU),
        start=None if experiment.start is None else made_twin(experiment.start),
        probe=probe_of_twin() if experiment.probe is None else probe_of_twin(experiment.probe.images),
    )


def with_objective(experiment: Experiment, name: str, epochs: int) -> Experiment:
    """The same experiment from initial weights with another of `objectives`, for so many epochs."""
    optim: Optimisation = replace(experiment.optim, epochs=epochs)
    title = f"{experiment.name}-{name.replace('_', '-')}"
    return replace(experiment, name=title, objective=objectives()[name], optim=optim, start=None)
