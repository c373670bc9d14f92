"""Free adversarial training: replays of a batch against the same steps by hand, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.estimators import OnFrames
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import SpikingNetwork
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L2, Ball, Linf
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.experiment import Experiment, Optimisation
from hosnn.training.free_objective import FreeAdversarial
from hosnn.training.objectives import Adversarial, CrossEntropy, Objective
from hosnn.training.paired_objectives import TRADES
from hosnn.training.ranks import LossOf, Ranks
from hosnn.training.step import optimiser_step

NETWORK = ConvNet("4C3-P2-8-4", (1, 28, 28), (0.5,), (0.25,), 3, dropout=0.0, rule=bptt(), spiking_output=False)

PER_STEP = Threat(Linf(0.05), per_step=True)
ATTACK = PGD(PER_STEP, steps=1, keep_best=False)


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.5)], ids=str)
def test_each_replay_trains_on_images_moved_along_the_gradient_of_the_one_before(
    ball: Ball, data: Dataset, fabric: Fabric
) -> None:
    threat, loss = Threat(ball), CrossEntropy()
    experiment = Experiment(
        name="free",
        data="toy",
        network=NETWORK,
        objective=FreeAdversarial(threat, loss, replays=3),
        optim=Optimisation(clip=0.0, weight_decay=0.0),
    )
    torch.manual_seed(0)
    network: SpikingNetwork = NETWORK.build()
    by_hand: SpikingNetwork = NETWORK.build()
    by_hand.load_state_dict(network.state_dict())
    rows = torch.arange(16)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    optimiser_step(LossOf(network), network, optimiser, experiment, data.train, rows, 5, 0, Ranks(fabric))

    x, y = data.train.batch(rows)
    rng = SampleRandom(0, data.train.index[rows]).fold("training", 5)
    by_hand.train()
    perturbed = experiment.objective.perturbed(by_hand, x, y, rng)
    assert threat.allows(perturbed, x).all() and not torch.equal(perturbed, x)
    seen = []
    for _ in range(3):
        perturbed = perturbed.detach().requires_grad_()
        seen.append(perturbed)
        weights = list(by_hand.parameters())
        gradient, *gradients = torch.autograd.grad(loss(by_hand, perturbed, y).mean(), [perturbed, *weights])
        with torch.no_grad():
            for weight, slope in zip(weights, gradients, strict=True):
                weight.sub_(0.1 * slope)
            step = ball.eps * ball.steepest(gradient)
            perturbed = threat.project(perturbed + step, x)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    for found, expected in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_validation_images_are_attacked(data: Dataset) -> None:
    objective = FreeAdversarial(Threat(Linf(0.2)), CrossEntropy(), replays=4)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 4)).eval()
    x, y = data.validation.batch(torch.arange(16))
    rng = SampleRandom(0, torch.arange(16))
    attacked = objective.perturbed(network, x, y, rng)
    assert torch.equal(attacked, PGD(objective.threat, steps=4, step_size=1.0)(network, x, y, rng))
    assert not torch.equal(attacked, objective.perturbed(network.train(), x, y, rng))
    assert objective.title == "FreeAdversarial, PGD-4 51/255"


def test_one_replay_is_refused() -> None:
    with pytest.raises(ConfigError, match="replays = 1"):
        replace(FreeAdversarial(Threat(Linf(0.2)), CrossEntropy()), replays=1)


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(ATTACK, CrossEntropy(), "eval"),
        TRADES(ATTACK),
        FreeAdversarial(PER_STEP, CrossEntropy(), replays=2),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_a_threat_per_time_step_needs_frames(objective: Objective) -> None:
    x, y, rng = torch.rand(2, 1, 28, 28), torch.tensor([0, 1]), SampleRandom(0, torch.arange(2))
    network = NETWORK.build()
    with pytest.raises(ConfigError, match="wrap it in OnFrames"):
        objective.perturbed(network, x, y, rng)
    if isinstance(objective, Adversarial):
        framed = replace(objective, attack=OnFrames(objective.attack))
        assert framed.perturbed(network, x, y, rng).shape == (2, 3, 1, 28, 28)
