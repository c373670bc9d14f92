"""Fashion-MNIST, robust: FGSM with a random start at 8/255, dead zone, analogue first layer, 8 time steps."""

from dataclasses import replace

from hosnn.estimators import AdaptiveSharpness, Through
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.normalisation import Norm
from hosnn.robustness.apgd import APGD
from hosnn.robustness.losses import margin
from hosnn.robustness.pgd import PGD
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import PiecewiseLinear
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.objectives import Adversarial, CrossEntropy
from hosnn.training.probe import Probe


def fgsm_rs(threat: Threat = DEFAULT_THREAT) -> PGD:
    """FGSM from a random point of the ball with a step of 1.25 eps (Wong et al. 2020)."""
    return PGD(threat, steps=1, step_size=1.25, keep_best=False)


def probe(images: int = 500) -> Probe:
    """Short attacks that differ: SA-PGD through adaptive sharpness, APGD on the margin through a triangle."""
    threat = DEFAULT_THREAT
    attacks = (
        Through(AdaptiveSharpness(), SAPGD(threat, 20, loss=margin)),
        Through(bptt(PiecewiseLinear(0.5)), APGD(threat, 10, loss=margin)),
    )
    return Probe(attacks, images)


def network() -> ConvNet:
    return ConvNet(
        "15C5-P2-40C5-P2-300-10",
        image=(1, 28, 28),
        mean=(0.2860,),
        std=(0.3530,),
        steps=8,
        norm=Norm.SHARED,
        dropout=0.0,
        pool_gain=0.25,
        weight_scale=1.0,
        dynamics=Dynamics(tau_synapse=1.5),
        rule=bptt(),
        spiking_output=False,
        padded=False,
        analogue_layers=1,
        dead_zone=10 / 255,
    )


def lif() -> Experiment:
    """LIF, FGSM with a random start at 8/255."""
    return Experiment(
        name="fashion-mnist-robust-lif",
        data="fashion-mnist",
        network=network(),
        objective=Adversarial(fgsm_rs(), CrossEntropy(), craft_in="eval"),
        optim=Optimisation(epochs=5, lr=2e-3, batch_size=64, schedule=Optimisation().schedule),
        probe=probe(),
    )


def twin() -> Experiment:
    """The ANN twin."""
    return replace(lif(), name="fashion-mnist-robust-twin", network=replace(network(), twin=Twin.RELU))
