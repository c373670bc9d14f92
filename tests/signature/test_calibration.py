"""Calibration: a direct mean over clean data, the same however the data is cut, and nothing left behind."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import SignatureError
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, hidden_neurons
from hosnn.signature import Signature, calibrate, homeostatic
from hosnn.signature.calibration import trajectories
from hosnn.signature.signature import network_identity
from hosnn.spiking.coding import encode_constant
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.state import Dynamics
from hosnn.spiking.surrogate import Sigmoid
from tests.nn.test_networks import images, lif_network


class Own(nn.Module):
    """A user's network: an ordinary module with LIF() layers."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.dense1, self.fire1 = nn.Linear(6, 5), LIF()
        self.dense2, self.fire2 = nn.Linear(5, 3), LIF(fixed_threshold=True)
        self.length = steps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fire2(self.dense2(self.fire1(self.dense1(encode_constant(x, self.length, 3.0)))))
        return out.mean(0)


def own_network(seed: int = 0) -> Own:
    torch.manual_seed(seed)
    network = Own()
    with torch.no_grad():
        network.dense1.weight.mul_(5)
    return network


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


def recorded_membranes(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """u of every hidden layer, by a forward that replaces each layer's own."""
    found: dict[str, Tensor] = {}
    twin = copy.deepcopy(network).eval()
    for name, layer in hidden_neurons(twin).items():

        def forward(currents: Tensor, name: str = name, layer: LIF = layer) -> Tensor:
            found[name] = layer.trajectory(currents).membrane
            return type(layer).forward(layer, currents)

        layer.forward = forward  # type: ignore[assignment]
    with torch.no_grad():
        twin(x)
    return found


def assert_close(mine: Signature, other: Signature) -> None:
    assert mine.samples == other.samples and set(mine.layers) == set(other.layers)
    for name, layer in mine.layers.items():
        torch.testing.assert_close(layer.mean, other.layers[name].mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.variance, other.layers[name].variance, rtol=1e-9, atol=1e-12)


def test_signature_is_the_mean_and_variance_of_the_recorded_membranes() -> None:
    network, x = lif_network().double(), images(12).double()
    signature = calibrate(network, torch.split(x, 5))
    membranes = recorded_membranes(network, x)
    assert signature.samples == 12 and set(signature.layers) == set(membranes) == set(hidden_neurons(network))
    for name, layer in signature.layers.items():
        assert layer.mean.dtype is layer.variance.dtype is torch.float64
        torch.testing.assert_close(layer.mean, membranes[name].mean(1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.variance, membranes[name].var(1, unbiased=False), rtol=1e-9, atol=1e-12)
    assert signature.steps == 5


@pytest.mark.parametrize("size", [1, 4, 7, 12])
def test_signature_does_not_depend_on_how_the_data_is_cut(size: int) -> None:
    network, x = lif_network().double(), images(12).double()
    assert_close(calibrate(network, torch.split(x, size)), calibrate(network, [x]))


@pytest.mark.parametrize("at", [1, 5, 11])
def test_two_parts_merged_equal_the_whole(at: int) -> None:
    network, x = lif_network().double(), images(12).double()
    first, second, whole = (calibrate(network, [part]) for part in (x[:at], x[at:], x))
    assert_close(first.merge(second), whole)
    assert_close(second.merge(first), whole)


def test_batches_may_carry_labels_and_empty_batches_add_nothing() -> None:
    network, x = lif_network(), images(6)
    y = torch.zeros(6, dtype=torch.int64)
    expected = calibrate(network, [x[:3], x[3:]])
    for loader in ([(x[:3], y[:3]), (x[3:], y[3:])], [[x[:3], y[:3]], [x[3:], y[3:]]], [x[:3], x[:0], x[3:]]):
        assert_close(calibrate(network, loader), expected)


def test_the_model_is_left_as_it_was() -> None:
    """Mode (of every part: a user may hold one in eval), weights, gradients, hooks."""
    network = own_network().train()
    network.dense2.eval()
    network(vectors(4)).sum().backward()
    before = {name: (p.detach().clone(), p.grad) for name, p in network.named_parameters()}
    grads = {name: grad.clone() for name, (_, grad) in before.items() if grad is not None}
    modes = {name: module.training for name, module in network.named_modules()}
    calibrate(network, [vectors(8)])
    assert modes == {name: module.training for name, module in network.named_modules()}
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name][0]) and parameter.grad is before[name][1]
        assert parameter.grad is not None and torch.equal(parameter.grad, grads[name])
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_model_is_left_as_it_was_when_the_loader_fails() -> None:
    network = own_network().train()

    def broken() -> object:
        yield vectors(2)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        calibrate(network, broken())  # type: ignore[arg-type]
    assert all(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_dropout_is_off_while_calibrating() -> None:
    network = lif_network(LeNet(channels=(2, 3), hidden=8, dropout=0.9))
    assert_close(calibrate(network.train(), [images()]), calibrate(network.eval(), [images()]))


def test_a_users_own_network_turns_homeostatic_in_three_lines() -> None:
    network, x = own_network(), vectors(16)
    signature = calibrate(network, [x])
    robust = homeostatic(network, signature, adaptation=0.3)
    assert robust(x).shape == (16, 3)

    assert type(robust) is Own and isinstance(robust.fire1, TALIF) and not isinstance(robust.fire2, TALIF)
    assert type(network.fire1) is LIF, "the original is left as it was"
    assert torch.equal(homeostatic(network, signature, adaptation=0)(x), network(x))
    torch.testing.assert_close(robust.fire1.signature, signature.layers["fire1"].mean.float())


def test_a_signature_can_be_used_under_autograd() -> None:
    network = own_network()
    robust = homeostatic(network, calibrate(network, [vectors(8)]))
    robust(vectors(4)).sum().backward()
    assert isinstance(robust.fire1, TALIF) and robust.fire1.adaptation.grad is not None


def test_a_homeostatic_network_can_be_calibrated_again() -> None:
    network, x = own_network(), vectors(16)
    robust = homeostatic(network, calibrate(network, [x]))
    again = calibrate(robust, [x])
    assert again.model_sha256 == network_identity(robust) != network_identity(network)
    assert isinstance(homeostatic(robust, again).fire1, TALIF)


def test_no_spiking_layer_or_no_image_raises() -> None:
    with pytest.raises(SignatureError, match=r"without hosnn\.LIF layers"):
        calibrate(nn.Linear(2, 2), [torch.rand(3, 2)])
    for loader in ([], [vectors(0)]):
        with pytest.raises(SignatureError, match="no images"):
            calibrate(own_network(), loader)


def test_a_layer_that_is_never_reached_is_named() -> None:
    network = own_network()
    network.spare = LIF()
    with pytest.raises(SignatureError, match=r"\['spare'\] did not run"):
        calibrate(network, [vectors(2)])


def test_a_layer_used_twice_in_one_pass_raises() -> None:
    """It would have two signatures, and TA-LIF can hold one."""

    class Twice(Own):
        def forward(self, x: Tensor) -> Tensor:
            currents = self.dense1(encode_constant(x, self.length, 3.0))
            out: Tensor = self.dense2(self.fire1(self.fire1(currents)))
            return out.mean(0)

    with pytest.raises(SignatureError, match=r"fire1.*more than once"):
        calibrate(Twice(), [vectors(2)])


def test_trajectories_show_every_hidden_layer(network: SpikingNetwork | None = None) -> None:
    steps = trajectories(lif_network(), images(3))
    assert {name: step.spikes.shape[:2] for name, step in steps.items()} == {
        f"body.neurons{number}": (5, 3) for number in (1, 2, 3)
    }


@pytest.mark.parametrize("shape", [(7,), (3, 6, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_membranes_are_those_of_the_trajectory(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """By whatever kernel runs here, bit for bit; of bfloat16 currents in float32."""
    currents = 2 * torch.randn(5, 3, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = currents.float() if dtype is torch.bfloat16 else currents
    for layer in (LIF(), TALIF(torch.full((5, *shape), 0.3, dtype=wide.dtype), 0.2)):
        found = layer.membranes(currents)
        assert torch.equal(found.to(wide.dtype), layer.trajectory(wide).membrane) and not found.requires_grad


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"dead_zone": 0.3}, False),
        ({"pool_gain": 2.0}, False),
        ({"dynamics": Dynamics(tau_synapse=2.0)}, False),
        ({"rule": bptt(Sigmoid(0.3))}, True),
        ({"steps": 5}, True),
    ],
    ids=str,
)
def test_the_identity_of_a_network_is_what_its_membranes_depend_on(change: dict[str, Any], same: bool) -> None:
    blueprint = ConvNet("3C3-P2-4C3-4", (1, 12, 12), (0.5,), (0.25,), steps=3)
    network, other = blueprint.build(), replace(blueprint, **change).build()
    other.load_state_dict(network.state_dict())
    assert (network_identity(network) == network_identity(other)) is same
