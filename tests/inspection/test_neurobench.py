"""Our counts are NeuroBench's on networks that both can run; neurobench.json says how its figures were measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.inspection.inspect import inspect
from hosnn.nn.layers import ConstantCoding, MeanReadout, OverTime
from hosnn.nn.neurons import LIF
from hosnn.results.inspection import Energy
from hosnn.spiking.state import Dynamics, Reset

VECTOR = json.loads(Path(__file__).with_name("neurobench.json").read_text(encoding="utf-8"))
RESETS = {"zero": Reset.HARD, "subtract": Reset.SOFT}
OUR_NAMES = {"Effective Neuron Ops": "NeuronOperations"}
"""Names of NeuroBench that we call otherwise."""
NOT_COMPARED = {"Neuron Dense Ops", "Footprint"}
"""We have no dense neuron operations; the footprint is compared by itself."""

EACH = pytest.mark.parametrize("recorded", VECTOR["networks"], ids=lambda recorded: recorded["reset"])


def tensor(sixteenths: Any) -> Tensor:
    return torch.tensor(sixteenths, dtype=torch.float32) / 16


def rebuilt(recorded: dict[str, Any]) -> nn.Module:
    """The recorded snnTorch network of hosnn's layers: a synapse without memory delivers spikes as they are."""
    layers: list[nn.Module] = []
    for weight in map(tensor, VECTOR["weights"].values()):
        layer: nn.Conv2d | nn.Linear
        if weight.dim() == 4:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight)
        flatten = [nn.Flatten()] if layers and weight.dim() == 2 else []
        dynamics = Dynamics(1 / (1 - VECTOR["decay"]), 1, recorded["threshold"], RESETS[recorded["reset"]])
        layers += [OverTime(*flatten, layer), LIF(dynamics)]
    return nn.Sequential(ConstantCoding(VECTOR["steps"], tau_synapse=1), *layers, MeanReadout()).eval()


def energy(recorded: dict[str, Any]) -> Energy:
    images = tensor(VECTOR["images"])
    result = inspect(rebuilt(recorded), (images, torch.zeros(len(images), dtype=torch.int64))).energy
    assert result is not None
    return result


@EACH
def test_counts_are_those_of_neurobench(recorded: dict[str, Any]) -> None:
    ours = energy(recorded).neurobench
    theirs = {OUR_NAMES.get(name, name): value for name, value in recorded["neurobench"].items()}
    assert theirs.keys() - NOT_COMPARED == ours.keys() - {"Footprint"}
    assert {name: ours[name] for name in ours if name != "Footprint"} == pytest.approx(
        {name: theirs[name] for name in ours if name != "Footprint"}, rel=1e-12
    )
    assert ours["Footprint"] == theirs["Footprint"] - recorded["footprint_of_snntorch_neurons"]


@EACH
def test_the_recorded_networks_have_what_counts_could_differ_on(recorded: dict[str, Any]) -> None:
    """Zero weights and pixels, neurons that fire and that do not, membranes that change and that stay."""
    assert all(bool((tensor(weight) == 0).any()) for weight in VECTOR["weights"].values())
    assert bool((tensor(VECTOR["images"]) == 0).any())
    theirs = recorded["neurobench"]
    assert 0.1 < theirs["ActivationSparsity"] < 0.95
    assert theirs["Effective Neuron Ops"] < theirs["Neuron Dense Ops"]
    assert 0 < theirs["Effective_ACs"] < theirs["Dense"] and 0 < theirs["Effective_MACs"] < theirs["Dense"]


def test_the_vector_says_how_it_was_made() -> None:
    assert VECTOR["command"].startswith("python bench/neurobench_vector.py")
    assert {"neurobench", "snntorch", "torch", "python"} <= VECTOR["versions"].keys()
