"""What a validation says of a network beside its accuracy."""

from dataclasses import replace

import pytest

from hosnn.spiking.state import Dynamics
from hosnn.training.experiment import Experiment
from hosnn.training.ranks import Ranks
from hosnn.training.validation import BLIND, validate
from tests.training.toy import CLEAN, NETWORK, ROBUST, cpu, toy_data


@pytest.mark.parametrize("experiment", [CLEAN, ROBUST], ids=["clean", "attacked"])
@pytest.mark.parametrize(("threshold", "blind"), [(0.01, False), (1e4, True)])
def test_a_network_in_which_nothing_spikes_is_named(experiment: Experiment, threshold: float, blind: bool) -> None:
    network = replace(NETWORK, dynamics=Dynamics(threshold=threshold)).build()
    found = validate(network, experiment, toy_data().validation, Ranks(cpu()))
    assert found.blind is blind
    assert (BLIND in str(found)) is blind


def test_one_image_shows_nothing() -> None:
    network = replace(NETWORK, dynamics=Dynamics(threshold=1e4)).build()
    split = toy_data().validation.subset(1)
    assert not validate(network, CLEAN, split, Ranks(cpu())).blind
