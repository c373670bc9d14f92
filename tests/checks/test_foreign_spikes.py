"""A network that spikes by foreign layers or functions is never said not to, and an ordinary one always is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hosnn.checks.diagnosis import diagnose
from hosnn.checks.inspection import foreign_spikes, inspect_network
from hosnn.checks.model_checks import gradient_estimators, state_between_calls
from hosnn.checks.spike_traces import levels_of
from hosnn.robustness.balls import Linf
from hosnn.robustness.threats import Threat
from tests.checks import foreign, planted
from tests.checks.foreign import Network, Neuron, WithLayer, count, step

X, Y = planted.images(64)
FACTORS = torch.linspace(0.3, 1.7, 32)

SPIKING: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "graded layer": (lambda: WithLayer(Neuron(step, 0.3)), "foreign", "Neuron emits spikes"),
    "layer of one factor per neuron": (lambda: WithLayer(Neuron(step, FACTORS)), "foreign", "function Step"),
    "layer of several spikes": (lambda: WithLayer(Neuron(count)), "unknown", "Neuron emits multiples"),
    "several graded spikes": (lambda: WithLayer(Neuron(count, 0.7)), "unknown", "Neuron emits multiples"),
    "function": (Network, "foreign", "autograd function Step emits spikes"),
    "function that is silent": (lambda: Network(threshold=99.0), "foreign", "autograd function Step"),
    "straight-through": (foreign.StraightThrough, "unknown", "a comparison"),
    "straight-through, silent": (lambda: foreign.StraightThrough(99.0), "unknown", "a comparison"),
    "comparison": (foreign.Comparing, "unknown", "a comparison"),
    "written by a mask": (foreign.Writing, "unknown", "a comparison"),
    "chosen": (foreign.Choosing, "unknown", "a comparison"),
    "heaviside": (foreign.Heaviside, "unknown", "heaviside"),
}


@pytest.mark.parametrize("name", SPIKING)
def test_foreign_spikes_are_seen_or_not_ruled_out(name: str) -> None:
    make, kind, evidence = SPIKING[name]
    network = inspect_network(make().eval(), X[:16])
    assert network.spiking == kind and evidence in network.evidence
    check = gradient_estimators(network.spiking, network.evidence)
    assert check.severity == "warn" and evidence in check.figure


def test_several_spikes_of_a_known_library_are_spikes() -> None:
    named = type("MultiSpike", (Neuron,), {"__module__": "sinabs.layers"})
    assert foreign_spikes(WithLayer(named(count)), X[:16]) == ("foreign", "MultiSpike emits spikes")


class Doubled(torch.autograd.Function):
    """A function with a gradient of its own that is no spike."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


class Applying(nn.Module):
    """A linear classifier of what a function makes of the images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.flatten(1)) @ self.weight


def unseen(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy().copy())


@pytest.mark.parametrize(
    ("function", "evidence"),
    [(Doubled.apply, "function Doubled has a gradient of its own"), (unseen, "cannot be seen"), (torch.round, "round")],
)
def test_what_may_be_spikes_is_not_ruled_out(function: Any, evidence: str) -> None:
    spiking, found = foreign_spikes(Applying(function), X[:16])
    assert spiking == "unknown" and evidence in found


def test_a_model_that_does_not_run_while_it_is_watched_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def only_twice(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) > 1:
            raise RuntimeError("no dispatch mode")
        return x

    assert foreign_spikes(Applying(only_twice), X[:16]) == ("unknown", "its operations cannot be seen")


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(36, 16), nn.ReLU6(), nn.Hardtanh(), nn.Linear(16, 4))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(
        nn.Flatten(2), nn.Unflatten(2, (8, 8)), nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 4)
    )


def recomputed(x: Tensor) -> Tensor:
    return checkpoint(torch.tanh, x, use_reentrant=True) if x.requires_grad else x.tanh()


ORDINARY: dict[str, Callable[[], nn.Module]] = {
    "perceptron": planted.ordinary,
    "convolutional": convolutional,
    "transformer": transformer,
    "leaky by hand": lambda: Applying(lambda x: torch.where(x > 0.5, x, 0.1 * x)),
    "ReLU by hand": lambda: Applying(lambda x: (x - 0.5) * (x > 0.5)),
    "dropout that is always on": lambda: Applying(lambda x: functional.dropout(x, 0.5, training=True)),
    "checkpoint": lambda: Applying(recomputed),
    "saturated": lambda: Applying(lambda x: nn.Softmax(1)(1e5 * x)),
    "in place": lambda: Applying(lambda x: torch.zeros_like(x).add_(x).clamp_(0.2, 0.6)),
    "constant mask": lambda: Applying(lambda x: x * (torch.arange(64) > 9).float()),
    "check of the input": lambda: Applying(lambda x: x if bool((x >= 0).all()) else x.clamp(0)),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_networks_do_not_spike(name: str) -> None:
    assert foreign_spikes(ORDINARY[name]().eval(), X[:16]) == ("none", "")


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0, 1, 1, 0], "two"),
        ([0, 0.3, 0, 0.3], "two"),
        ([-1, 0, 1, 0], "two"),
        ([0, 1, 2, 1, 2, 3, 3], "several"),
        ([0, 0.7, 1.4, 0.7, 1.4], "several"),
        ([0, 1], None),  # one value, which nothing equals
        ([0, 0.3, 0.31, 0.3, 0.31], None),
        ([0, 1, 100, 1, 100], None),
        ([1, 1, 1], None),
        ([0, 0, 0], None),
        ([0, 1, float("nan")], None),
    ],
)
def test_levels_are_told_from_real_numbers(values: list[float], levels: str | None) -> None:
    assert levels_of(torch.tensor(values, dtype=torch.float32)) == levels
    assert levels_of(torch.tensor([0, 1, 1])) is levels_of("spikes") is None


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("snntorch", "snntorch.utils.reset(network)"),
        ("spikingjelly.activation_based", "spikingjelly.activation_based.functional.reset_net(network)"),
        ("sinabs.layers", "sinabs.utils.reset_states(network)"),
        ("mine", "reset_mem() of every Kept"),
    ],
)
def test_state_is_seen_although_another_size_of_batch_drops_it_and_the_reset_is_named(package: str, call: str) -> None:
    kept = type("Kept", (foreign.Stateful,), {"__module__": package})
    found = diagnose(WithLayer(kept()).eval(), X, Y, Threat(Linf(0.1)))  # 64 images: blocks of 50 and 14
    assert found.carried_state > 0.01 and found.reset_call == call
    check = state_between_calls(found.carried_state, found.reset_call)
    assert check.severity == "fail" and f"call {call} first in forward" in check.meaning


def test_without_a_library_no_reset_call_is_named() -> None:
    assert diagnose(planted.ordinary(), X, Y, Threat(Linf(0.1))).reset_call == ""
    assert "start every call from rest" in state_between_calls(1.0).meaning


def snntorch_network(graded: float) -> nn.Module:
    snn = pytest.importorskip("snntorch")
    leaky = partial(snn.Leaky, beta=0.9, spike_grad=snn.surrogate.atan(), init_hidden=True)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), leaky(threshold=0.1, graded_spikes_factor=graded), nn.Linear(32, 4)
    )


def sinabs_network() -> nn.Module:
    layers, activation = pytest.importorskip("sinabs.layers"), pytest.importorskip("sinabs.activation")
    lif = layers.LIF(tau_mem=20.0, spike_fn=activation.MultiSpike, spike_threshold=0.01)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Unflatten(1, (1, 32)), lif, nn.Flatten(), nn.Linear(32, 4))


def spikingjelly_network() -> nn.Module:
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    return Applying(lambda x: surrogate.atan.apply(x - 0.5, 2.0))


@pytest.mark.parametrize(
    "make", [partial(snntorch_network, 1.0), partial(snntorch_network, 0.3), sinabs_network, spikingjelly_network]
)
def test_spikes_of_other_libraries_are_seen(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert foreign_spikes(make().eval(), X[:16])[0] == "foreign"
