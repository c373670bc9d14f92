"""A copy of a model serves another thread only if it answers alike and shares nothing that a call changes."""

import warnings
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from hosnn.checks.copies import compare_copy
from hosnn.checks.model_checks import copies
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF
from tests.checks import foreign, planted
from tests.checks.planted import Around

X, _ = planted.images(16)


class Registered(nn.Module):
    """Resets by the class the layers that were made, as snnTorch; a copy was not made but copied."""

    made: ClassVar[list[foreign.Stateful]] = []

    def __init__(self) -> None:
        super().__init__()
        self.network = foreign.WithLayer(foreign.Stateful())
        self.made.append(self.network.layer)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.made:
            layer.reset_mem()
        return self.network(x)  # type: ignore[no-any-return]


class HalfCopied(Around):
    """Copies without its scale."""

    scale = 1.0

    def __deepcopy__(self, memo: object) -> "HalfCopied":
        return HalfCopied()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


def half_copied() -> nn.Module:
    network = HalfCopied()
    network.scale = 2.0
    return network


class Calling(Around):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.function(x))


def captured_module() -> nn.Module:
    layer = nn.Identity()
    return Calling(lambda x: layer(x))


def captured_list() -> nn.Module:
    membranes: list[Tensor] = []

    def remembering(x: Tensor) -> Tensor:
        membranes[:] = [x]
        return membranes[0]

    return Calling(lambda x: remembering(x))


def hooked() -> nn.Module:
    network, seen = planted.ordinary(), []
    network.register_forward_hook(lambda *_: seen.append(1))
    return network


def captured_number() -> nn.Module:
    slope, function = 2.0, torch.relu
    return Calling(lambda x: function(slope * x))


def of_a_global_layer() -> nn.Module:
    return Calling(_GLOBAL)


_GLOBAL = nn.Identity()


class Global(Around):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_GLOBAL(x))


def with_a_graph() -> nn.Module:
    network = planted.ordinary()
    network.held = next(network.parameters()) * 1
    return network


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(planted.ordinary(), X)  # type: ignore[no-any-return, no-untyped-call]


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ordinary": (planted.ordinary, "equal"),
    "LIF": (planted.spiking, "equal"),
    "TA-LIF": (planted.adapting, "equal"),
    "traced": (traced, "equal"),
    "state": (lambda: foreign.WithLayer(foreign.Stateful()), "equal"),
    "random": (planted.Noisy, "equal"),
    "a number in a closure": (captured_number, "equal"),
    "a module that is an attribute": (of_a_global_layer, "equal"),
    "reset by the class": (Registered, "different"),
    "copied in part": (half_copied, "different"),
    "a module in a closure": (captured_module, "shared"),
    "a list in a closure": (captured_list, "shared"),
    "a list in a hook": (hooked, "shared"),
    "a global module": (Global, "shared"),
    "a graph": (with_a_graph, "impossible"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_copy_is_known_for_what_it_is(name: str) -> None:
    make, expected = CASES[name]
    assert compare_copy(make().eval(), X) == expected


def test_networks_of_the_paper_are_attacked_in_several_threads() -> None:
    network = LeNet(channels=(3, 4), hidden=16).build().eval()
    assert any(isinstance(module, LIF) for module in network.modules())
    assert compare_copy(network, torch.rand(4, 1, 28, 28)) == "equal"


@pytest.mark.parametrize(
    ("state", "estimators", "severity"),
    [("different", False, "warn"), ("different", True, "fail"), ("equal", True, "pass"), ("shared", True, "pass")],
)
def test_a_copy_that_answers_differently_is_a_finding(state: str, estimators: bool, severity: str) -> None:
    assert copies(state, estimators).severity == severity
