"""A signature belongs to one network: its weights, its neuron constants, its normalisation."""

from dataclasses import replace

import pytest
import torch

from hosnn.errors import SignatureError
from hosnn.nn.lenet import LeNet
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics, Reset

SMALL = LeNet(channels=(2, 3), hidden=8)


@pytest.mark.parametrize(
    "other",
    [
        replace(SMALL, dynamics=Dynamics(tau_membrane=2)),
        replace(SMALL, dynamics=Dynamics(reset=Reset.SOFT)),
        replace(SMALL, mean=(0.1,)),
    ],
)
def test_equal_weights_with_other_constants_are_another_network(other: LeNet) -> None:
    network, twin = SMALL.build(), other.build()
    twin.load_state_dict(network.state_dict())
    signature = calibrate(network, [torch.rand(4, 1, 28, 28)])
    with pytest.raises(SignatureError, match="other weights or constants"):
        homeostatic(twin, signature)


def test_another_gradient_rule_is_the_same_network() -> None:
    network, twin = SMALL.build(), replace(SMALL, rule=bptt()).build()
    twin.load_state_dict(network.state_dict())
    assert homeostatic(twin, calibrate(network, [torch.rand(4, 1, 28, 28)])) is not twin
