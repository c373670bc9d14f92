"""Layers that run on the image once, the dead zone, the ANN twin, and neurons without a leak."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.estimators.membrane_margin import logit_scale
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.encoder import DeadZone
from hosnn.nn.fusion import unfused
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import LIF, Emit, neurons
from hosnn.nn.normalisation import Norm
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.kernels import backend, cpu
from hosnn.spiking.state import Dynamics, Reset

needs_kernel = pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")

LEVEL = 10 / 255
PLAIN = ConvNet(
    "4C3-P2-6C3-12-5",
    image=(2, 8, 8),
    mean=(0.3, 0.4),
    std=(0.5, 0.6),
    steps=4,
    dropout=0.0,
    pool_gain=0.25,
    rule=bptt(),
    spiking_output=False,
)
ENCODED = replace(PLAIN, analogue_layers=1)
NETWORKS = {
    "encoder": ENCODED,
    "encoder of two layers": replace(PLAIN, analogue_layers=2),
    "encoder, dead zone, biases, no padding": replace(
        ENCODED, dead_zone=LEVEL, bias=True, norm=Norm.NONE, padded=False, weight_scale=4.0
    ),
    "encoder, statistics per step": replace(ENCODED, norm=Norm.PER_STEP),
    "no leak": replace(PLAIN, dynamics=Dynamics(math.inf, 1.5)),
    "encoder, no leak, soft reset": replace(ENCODED, dynamics=Dynamics(math.inf, 1.0, reset=Reset.SOFT)),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def built(blueprint: Any, seed: int = 0) -> SpikingNetwork:
    torch.manual_seed(seed)
    network: SpikingNetwork = blueprint.build()
    for number in range(9):
        network.train()(images(8, seed=number))  # moves running statistics
    return network.eval()


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def frames(count: int = 3) -> Tensor:
    return images(count)[:, None] * torch.linspace(0.5, 1, 4)[None, :, None, None, None]


def runs_of_first_convolution(network: SpikingNetwork, x: Tensor) -> int:
    """How many images the first convolution sees."""
    seen: list[int] = []
    first: Any = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with first.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))):
        network(x)
    return sum(seen)


@EVERY
@pytest.mark.parametrize("timed", [False, True], ids=["images", "frames"])
@pytest.mark.parametrize("training", [False, True])
def test_fused_unfused_and_eager_agree(name: str, timed: bool, training: bool) -> None:
    network = built(NETWORKS[name]).train(training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    found: list[list[Tensor]] = []
    for how, fused in (("cpu" if cpu.library() else "eager", True), ("eager", True), ("eager", False)):
        network.load_state_dict(state)
        x = (frames() if timed else images()).requires_grad_()
        with backend.choose(how):
            if fused:
                outputs = network.outputs(x)
            else:
                with unfused(network):
                    outputs = network.outputs(x)
        found.append([outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [x, *network.parameters()])])
    assert found[0][0].std() > 1e-3 and found[0][1].any()
    assert torch.equal(found[0][0], found[1][0]), "the kernel's forward pass is the eager one's to the bit"
    for other in found[1:]:
        for got, expected in zip(found[0], other, strict=True):
            assert (got - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-9


def test_the_encoder_computes_what_plain_torch_does() -> None:
    network, x = built(replace(ENCODED, dead_zone=LEVEL)), images()
    weights = network.state_dict()
    mean, std = (torch.tensor(values)[:, None, None] for values in (PLAIN.mean, PLAIN.std))
    features = functional.conv2d(((x - LEVEL).clamp(min=0) - mean) / std, weights["encoder.conv1.0.weight"], padding=1)
    moments = [weights[f"encoder.norm1.each.0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    features = functional.avg_pool2d(functional.batch_norm(features, *moments).relu(), 2)
    torch.testing.assert_close(network.encoder(network.normalise(x)), features)  # type: ignore[misc]
    expected = network.readout(network.body(network.coding(features)))
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
    assert list(neurons(network)) == ["body.neurons2", "body.neurons3"]


def test_a_constant_image_as_frames_is_the_image() -> None:
    network, x = built(ENCODED).double(), images().double()
    torch.testing.assert_close(network(x[:, None].expand(-1, 4, -1, -1, -1)), network(x), rtol=0, atol=1e-12)


def test_the_encoder_runs_once_per_image_or_frame() -> None:
    network = built(ENCODED)
    assert runs_of_first_convolution(network, images(3)) == 3
    assert runs_of_first_convolution(network, frames(3)) == 12
    plain = built(PLAIN)
    with unfused(plain):
        assert runs_of_first_convolution(plain, images(3)) == 12


def test_dropout_in_the_encoder_has_one_mask_over_frames() -> None:
    network = built(replace(ENCODED, dropout=0.5)).train()
    features = network.encoder(network.normalise(frames(2) + 1))  # type: ignore[misc]
    dropped = features == 0
    assert dropped.any() and (dropped.all(1) == dropped.any(1)).float().mean() > 0.8  # a rectifier gives zeros too


def test_weights_of_the_encoder_are_not_scaled() -> None:
    torch.manual_seed(0)
    scaled = replace(ENCODED, weight_scale=10.0).build()
    torch.manual_seed(0)
    plain = replace(ENCODED, weight_scale=1.0).build()
    for name, weight in scaled.named_parameters():
        ratio = 10.0 if name.startswith("body") and weight.dim() > 1 else 1.0
        torch.testing.assert_close(weight, ratio * plain.get_parameter(name))


@pytest.mark.parametrize("level", [-0.1, 1.0, float("nan")])
def test_a_dead_zone_outside_the_pixel_range_is_refused(level: float) -> None:
    with pytest.raises(ConfigError, match="level"):
        DeadZone(level)
    with pytest.raises(ConfigError, match="dead_zone"):
        replace(PLAIN, dead_zone=level)


def test_more_analogue_layers_than_convolutions_are_refused() -> None:
    for wrong in (-1, 3):
        with pytest.raises(ConfigError, match=f"analogue_layers = {wrong} .* expected 0 to 2"):
            replace(PLAIN, analogue_layers=wrong)


def test_a_dead_zone_is_a_rectifier_of_what_exceeds_its_level() -> None:
    x = torch.tensor([0.0, LEVEL / 2, 0.5, 1.0]).view(1, 1, 2, 2).requires_grad_()
    y = DeadZone(LEVEL)(x)
    torch.testing.assert_close(y.detach().flatten(), torch.tensor([0, 0, 0.5 - LEVEL, 1 - LEVEL]))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.flatten().tolist() == [0, 0, 1, 1]


class StraightThrough(nn.Module):
    """The network with the gradient of the identity in its dead zone, for an attacker who looks past zeros."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network
        assert isinstance(network.normalise, nn.Sequential)
        self.zone, self.rest = network.normalise[0], network.normalise[1]

    def forward(self, x: Tensor) -> Tensor:
        images = self.rest(x + (self.zone(x) - x).detach())
        return self.network.readout(  # type: ignore[no-any-return]
            self.network.body(self.network.coding(self.network.encoder(images)))  # type: ignore[misc]
        )


@pytest.mark.parametrize(("eps", "reaches"), [(8 / 255, False), (LEVEL, False), (12 / 255, True)])
def test_a_straight_through_gradient_gains_nothing_within_the_level(eps: float, reaches: bool) -> None:
    """Black pixels are moved by it, but what they do to the network is nothing, to the bit, unless eps exceeds it."""
    network, x = built(replace(ENCODED, dead_zone=LEVEL)), images(6)
    black = x < 0.6
    x, y = torch.where(black, 0, x), torch.zeros(6, dtype=torch.int64)
    through = StraightThrough(network)
    torch.testing.assert_close(through(x), network(x))
    attack = PGD(Threat(Linf(eps)), steps=3, step_size=0.5, keep_best=False)
    found = attack(through, x, y, SampleRandom(0, torch.arange(6)))
    assert (found[black] > 0).float().mean() > 0.2, "it does try"
    erased = torch.where(black, 0, found)
    with torch.no_grad():
        assert torch.equal(network(found), network(erased)) != reaches


def test_the_twin_has_no_spiking_neurons_and_runs_once() -> None:
    blueprint = replace(ENCODED, twin=Twin.RELU, dead_zone=LEVEL, norm=Norm.PER_STEP, spiking_output=True)
    network = built(blueprint)
    assert not any(isinstance(module, LIF) for module in network.modules())
    assert runs_of_first_convolution(network, images(3)) == 3
    assert network.outputs(images(3)).shape == (1, 3, 5) and network.blueprint == blueprint
    layers: dict[str, Any] = dict(network.named_modules())
    x = network.normalise(images(3))
    for part in (network.encoder, network.body):
        for layer in part.children():  # type: ignore[union-attr]
            x = layer(x[None])[0]
    torch.testing.assert_close(network(images(3)), x)
    assert (layers["body.neurons3"](torch.tensor([[[-1.0, 2.0]]])) == torch.tensor([[[0.0, 2.0]]])).all()


def test_the_twin_has_the_weights_of_its_spiking_network() -> None:
    for blueprint in (PLAIN, ENCODED, replace(PLAIN, norm=Norm.NONE, bias=True)):
        twin, spiking = (replace(blueprint, twin=kind).build().state_dict() for kind in (Twin.RELU, Twin.NONE))
        assert {name: tensor.shape for name, tensor in twin.items()} == {
            name: tensor.shape for name, tensor in spiking.items()
        }


def test_a_network_without_hidden_layers_is_no_twin() -> None:
    """It has no spiking neurons either, but runs over its time steps, as its stored checkpoints did."""
    network = replace(PLAIN, structure="5").build().eval()
    assert network.outputs(images()).shape == (4, 3, 5)


def test_biases_are_where_nothing_normalises() -> None:
    biased = {
        name for name, _ in replace(PLAIN, bias=True, norm=Norm.NONE).build().named_parameters() if "bias" in name
    }
    assert biased == {"body.conv1.0.bias", "body.conv2.0.bias", "body.dense3.1.bias"}
    dense = {name for name, _ in replace(PLAIN, bias=True, norm_dense=False).build().named_parameters()}
    assert "body.dense3.1.bias" in dense and "body.conv1.0.bias" not in dense
    assert not any(".0.bias" in name and "conv" in name for name, _ in PLAIN.build().named_parameters())


@pytest.mark.parametrize(("side", "structure"), [(4, "4C3-P2-4C3-5"), (3, "4C5-5")])
def test_convolutions_without_padding_need_room(side: int, structure: str) -> None:
    small = replace(PLAIN, image=(2, side, side), structure=structure)
    assert small.build()(torch.rand(2, 2, side, side)).shape == (2, 5)
    with pytest.raises(ConfigError, match=f"images of {side} x {side}"):
        replace(small, padded=False)
    assert replace(PLAIN, padded=False).build()(images()).shape == (3, 5)


@needs_kernel
@pytest.mark.parametrize("reset", Reset)
def test_without_a_leak_the_kernel_is_the_eager_step_to_the_bit(reset: Reset) -> None:
    layer = LIF(Dynamics(math.inf, 1.5, reset=reset), bptt())
    rng = torch.Generator().manual_seed(0)
    found: list[tuple[Tensor, Tensor]] = []
    for how in ("eager", "cpu"):
        currents = torch.rand(40, 3, 7, generator=rng.manual_seed(0)).sub(0.3).requires_grad_()
        with backend.choose(how):
            traces = layer(currents)
        found.append((traces.detach(), torch.autograd.grad(traces.square().sum(), currents)[0]))
    assert torch.equal(found[0][0], found[1][0]) and found[0][0].any()
    assert (found[0][1] - found[1][1]).abs().max() <= 1e-4 * found[0][1].abs().max()


def test_without_a_leak_the_membrane_is_the_sum_of_currents() -> None:
    currents = torch.rand(6, 2, 3, dtype=torch.float64) / 10
    run = LIF(Dynamics(tau_membrane=math.inf)).trajectory(currents)
    torch.testing.assert_close(run.membrane, currents.cumsum(0))
    with pytest.raises(ConfigError, match="tau_synapse"):
        Dynamics(tau_synapse=math.inf)
    for wrong in (0.5, math.nan, -math.inf):
        with pytest.raises(ConfigError, match="tau_membrane"):
            Dynamics(tau_membrane=wrong)


def test_sums_of_impulses_without_a_leak_are_the_limit() -> None:
    times = torch.arange(1, 9, dtype=torch.float64)
    summed = torch.stack([sum(torch.tensor(0.8**j).double() for j in range(int(t))) for t in times])  # type: ignore[misc]
    torch.testing.assert_close(Dynamics(5.0).impulse_sums(times), summed)
    endless, large = Dynamics(math.inf), Dynamics(1e9)
    torch.testing.assert_close(endless.impulse_sums(times), large.impulse_sums(times), rtol=1e-6, atol=0)
    assert logit_scale(endless, Emit.TRACE, 8) == pytest.approx(logit_scale(large, Emit.TRACE, 8), rel=1e-6)
