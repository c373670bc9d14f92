"""Every field of a blueprint comes back from a checkpoint; one that is not used leaves the file as before."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hosnn.errors import CheckpointError, ConfigError
from hosnn.identity import OMITTED_AT_DEFAULT
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.normalisation import Norm
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import PotentialDependent, Surrogate
from hosnn.training.configuration import INFINITY, describe, network_from, rebuild
from hosnn.training.experiment import Experiment
from hosnn.training.models import load, save
from hosnn.training.objectives import Clean, CrossEntropy

PLAIN = ConvNet("3C3-P2-4C3-8-4", (1, 12, 12), (0.5,), (0.25,), steps=3, spiking_output=False)
CHANGES: dict[str, dict[str, Any]] = {
    "padded": {"padded": False},
    "bias": {"bias": True, "norm": Norm.NONE},
    "analogue_layers": {"analogue_layers": 2},
    "dead_zone": {"dead_zone": 10 / 255},
    "learned_readout": {"learned_readout": True},
    "twin": {"twin": Twin.RELU},
    "own surrogate of the spread": {"rule": bptt(PotentialDependent())},
    "no leak": {"dynamics": Dynamics(math.inf, 1.5, 0.7, Reset.SOFT)},
}
EVERYTHING = replace(
    PLAIN,
    padded=False,
    bias=True,
    norm=Norm.NONE,
    analogue_layers=1,
    dead_zone=0.1,
    learned_readout=True,
    dynamics=Dynamics(math.inf),
)
STORED = {name: replace(PLAIN, **change) for name, change in CHANGES.items()} | {"everything": EVERYTHING}


def test_every_optional_field_is_tried_here() -> None:
    optional = {field.name for field in fields(ConvNet) if field.metadata == OMITTED_AT_DEFAULT}
    assert optional == {"padded", "bias", "analogue_layers", "dead_zone", "learned_readout", "twin"} <= set(CHANGES)


@pytest.mark.parametrize("name", STORED)
def test_a_blueprint_is_read_as_it_was_written(name: str) -> None:
    text = json.dumps(describe(STORED[name]), allow_nan=False)
    assert rebuild(json.loads(text)) == STORED[name]
    assert (f'"tau_membrane": "{INFINITY}"' in text) == math.isinf(STORED[name].dynamics.tau_membrane)


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("adapting", [False, True], ids=["LIF", "TA-LIF"])
def test_a_network_comes_back_bit_for_bit(name: str, adapting: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: SpikingNetwork = STORED[name].build()
    x = torch.rand(5, 1, 12, 12)
    network.train()(x)
    network.eval()
    if adapting and STORED[name].twin is Twin.NONE:
        network = homeostatic(network, calibrate(network, [x]), 0.2)
    save(network, tmp_path / "network")
    again = load(tmp_path / "network")
    assert again.blueprint == STORED[name] and again.steps == network.steps
    for key, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network(x))


def test_fields_at_their_defaults_are_not_written() -> None:
    """So that experiments of before keep their identity."""
    assert set(describe(PLAIN)) == {"type", *(field.name for field in fields(ConvNet) if not field.metadata)}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a twin of another kind": ({"twin": "leaky"}, "leaky"),
    "more layers than there are": ({"analogue_layers": 3}, "analogue_layers"),
    "a number as a flag": ({"bias": 1}, "bias"),
    "no pixel": ({"dead_zone": 1.5}, "dead_zone"),
    "infinite": ({"dead_zone": INFINITY}, "dead_zone"),
    "infinity of another kind": ({"steps": INFINITY}, "steps"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_blueprint_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, match = WRONG[name]
    with pytest.raises(ConfigError, match=match):
        network_from(describe(PLAIN) | change)
    save(PLAIN.build(), tmp_path / "network")
    (config,) = tmp_path.rglob("config.json")
    content = json.loads(config.read_text(encoding="utf-8"))
    content["network"] |= change
    config.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError):
        load(tmp_path / "network")


class Own(Surrogate):
    """A surrogate that no file can name."""


def test_what_could_not_be_read_back_is_refused_before_any_training(tmp_path: Path) -> None:
    blueprint = replace(PLAIN, rule=bptt(Own()))
    with pytest.raises(ConfigError, match="which a checkpoint could not hold; expected settings of hosnn's own types"):
        Experiment(name="own", data="sample", network=blueprint, objective=Clean(CrossEntropy()))
    with pytest.raises(CheckpointError, match="set `blueprint` to None and read it with load_into"):
        save(blueprint.build(), tmp_path / "own")
    assert not (tmp_path / "own").exists()
