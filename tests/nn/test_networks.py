"""A network is a function of its input: no state, the same in every batch, differentiable in every mode."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.nn.body import Body
from hosnn.nn.layers import ConstantCoding, HasOutputs, Normalise, OverTime, SpikingNetwork, SumPool, TimeDropout
from hosnn.nn.lenet import LeNet, lenet_15c5_40c5_300, lenet_32c5_64c5_1024
from hosnn.nn.neurons import LIF, TALIF, hidden_neurons, neurons
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.kernels import backend, cpu
from hosnn.spiking.kernels.kernel_spec import ConstantInput, FusionContext
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import Arctan

TINY = LeNet(channels=(2, 3), hidden=8)


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def lif_network(description: LeNet = TINY, seed: int = 0) -> SpikingNetwork:
    """Weights large enough that every layer fires."""
    torch.manual_seed(seed)
    network = description.build()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    return network.eval()


def talif_network(description: LeNet = TINY, adaptation: float = 0.2) -> SpikingNetwork:
    plain = lif_network(description)
    return homeostatic(plain, calibrate(plain, [images(8, seed=9)]), adaptation)


Build = Callable[..., SpikingNetwork]
NETWORKS = pytest.mark.parametrize("build", [lif_network, talif_network])


@NETWORKS
@pytest.mark.parametrize("training", [False, True])
def test_calling_twice_gives_the_same_bits_and_leaves_nothing_behind(build: Build, training: bool) -> None:
    network = build(replace(TINY, dropout=0.0)).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attributes = {name: set(vars(layer)) for name, layer in network.named_modules()}
    x = images()
    first = network(x)
    network(images(3, seed=1))
    assert torch.equal(network(x), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert attributes == {name: set(vars(layer)) for name, layer in network.named_modules()}


@NETWORKS
@pytest.mark.parametrize("spiking_output", [False, True])
def test_an_image_does_not_depend_on_its_batch(build: Build, spiking_output: bool) -> None:
    """Equal up to the last rounding of a matrix product: a BLAS sums in another order for another number of rows."""
    network, x = build(replace(TINY, spiking_output=spiking_output)), images(8)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        network, x = network.to(dtype), x.to(dtype)
        whole = network(x)
        assert whole.abs().max() > 0.01, "a silent network proves nothing"
        for size in (1, 3):
            parts = torch.cat([network(part) for part in torch.split(x, size)])
            torch.testing.assert_close(parts, whole, rtol=0, atol=tolerance)
        order = torch.tensor([3, 1, 4, 0, 5, 2, 7, 6])
        torch.testing.assert_close(network(x[order]), whole[order], rtol=0, atol=tolerance)


@NETWORKS
def test_an_image_and_its_repeated_frames_give_the_same_logits(build: Build) -> None:
    network, x = build().double(), images().double()
    frames = x[:, None].expand(-1, TINY.steps, -1, -1, -1)
    torch.testing.assert_close(network(frames), network(x), rtol=0, atol=1e-14)


@NETWORKS
@pytest.mark.parametrize("rule", [bptt(), tssl_bp(), bptt(Arctan())], ids=["bptt", "tssl-bp", "arctan"])
@pytest.mark.parametrize("training", [False, True])
def test_gradient_reaches_the_input_in_eval_and_in_train(build: Build, rule: GradientRule, training: bool) -> None:
    network, x = build(replace(TINY, rule=rule, dropout=0.0)).train(training), images().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()


@NETWORKS
def test_the_gradient_is_the_same_in_eval_and_in_train(build: Build) -> None:
    network = build(replace(TINY, dropout=0.0))
    both = []
    for training in (False, True):
        x = images().requires_grad_()
        both.append(torch.autograd.grad(network.train(training)(x).square().sum(), x)[0])
    assert torch.equal(*both)


@NETWORKS
def test_outputs_over_time_average_to_the_logits(build: Build) -> None:
    network, x = build(), images()
    assert isinstance(network, HasOutputs)
    assert network.outputs(x).shape == (TINY.steps, len(x), 10)
    torch.testing.assert_close(network.outputs(x).mean(0), network(x))


@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("rule", [bptt(), tssl_bp()], ids=["bptt", "tssl-bp"])
def test_a_network_without_adaptation_is_its_lif_twin_bit_for_bit(reset: Reset, rule: GradientRule) -> None:
    description = replace(TINY, dynamics=Dynamics(reset=reset), rule=rule)
    plain, adapting = lif_network(description), talif_network(description, adaptation=0.0)
    assert any(isinstance(layer, TALIF) for layer in neurons(adapting).values())
    x = images()
    assert torch.equal(plain(x), adapting(x)) and plain(x).abs().max() > 0
    gradients = []
    for network in (plain, adapting):
        moving = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(network(moving).square().sum(), moving)[0])
    torch.testing.assert_close(*gradients)


def test_adaptation_does_change_the_network() -> None:
    assert not torch.equal(lif_network()(images()), talif_network(adaptation=0.5)(images()))


def test_the_output_layer_keeps_its_threshold() -> None:
    network = talif_network()
    assert len(hidden_neurons(network)) == 3 and len(neurons(network)) == 4
    assert not isinstance(neurons(network)["body.neurons4"], TALIF)


@pytest.mark.parametrize(
    ("description", "weights"),
    [
        (lenet_15c5_40c5_300(), 15 * 25 + 15 * 40 * 25 + 40 * 16 * 300 + 300 * 10),
        (lenet_32c5_64c5_1024(), 32 * 25 + 32 * 64 * 25 + 64 * 49 * 1024 + 1024 * 10),
    ],
)
def test_published_networks_have_their_published_sizes(description: LeNet, weights: int) -> None:
    network = description.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == weights
    assert network(images(2)).shape == (2, 10)


def test_other_inputs_than_images_or_frames_are_refused() -> None:
    network = lif_network()
    for wrong in (images()[0], images()[:, None].expand(-1, 4, -1, -1, -1)):
        with pytest.raises(ShapeError, match=r"expected images \[B, C, H, W\] or frames \[B, 5, C, H, W\]"):
            network(wrong)


def test_normalise_is_the_first_layer_and_exact() -> None:
    layer = Normalise((0.5, 0.25), (0.5, 0.125))
    x = torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(layer(x)[:, 1], (x[:, 1] - 0.25) / 0.125)
    for mean, std in (((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((0.5,), (-1.0,))):
        with pytest.raises(ConfigError, match="one std > 0 per channel"):
            Normalise(mean, std)


def test_over_time_applies_a_layer_to_every_step() -> None:
    layer = OverTime(nn.Conv2d(1, 2, 3), nn.Flatten())
    x = torch.rand(4, 3, 1, 5, 5)
    torch.testing.assert_close(layer(x), torch.stack([layer[1](layer[0](step)) for step in x]))


def test_sum_pool_is_the_sum_of_each_window_times_its_gain() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2))
    torch.testing.assert_close(SumPool(2)(x), 1.1 * windows)


def test_dropout_holds_one_mask_over_time_and_is_the_identity_in_eval() -> None:
    torch.manual_seed(0)
    x, layer = torch.ones(5, 4, 100), TimeDropout(0.25)
    dropped = layer(x)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(layer.eval()(x), x) and torch.equal(TimeDropout(0.0)(x), x)
    assert not torch.equal(layer.train()(x), dropped)
    for wrong in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"\[0, 1\)"):
            TimeDropout(wrong)


def test_coding_needs_a_time_step() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ConstantCoding(0)


@pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")
@pytest.mark.parametrize("padding", [0, 1])
def test_a_fused_network_gives_what_its_layers_give_one_after_the_other(padding: int) -> None:
    torch.manual_seed(0)
    network = LeNet(channels=(6, 7), hidden=20, padding=padding).build().eval()
    x = torch.rand(5, 1, 28, 28)
    found = []
    for how in ("eager", "cpu"):
        with backend.choose(how):
            images = x.clone().requires_grad_()
            outputs = network.outputs(images)
            found.append(
                (outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [images, *network.parameters()]))
            )
    assert torch.equal(found[0][0], found[1][0])
    for got, expected in zip(found[1][1:], found[0][1:], strict=True):
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["neurons1", "pool1", "conv1"])
def test_a_hook_sees_a_module_that_would_be_fused(name: str) -> None:
    network = LeNet(channels=(2, 3), hidden=8).build().eval()
    shapes: list[tuple[int, ...]] = []
    module = network.body.get_submodule(name)
    x = torch.rand(2, 1, 28, 28)
    before = network(x)
    handle = module.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    after = network(x)
    handle.remove()
    assert shapes == [{"neurons1": (5, 2, 2, 24, 24), "pool1": (5, 2, 2, 12, 12), "conv1": (5, 2, 2, 24, 24)}[name]]
    assert torch.allclose(before, after, atol=1e-5)


def test_a_layer_that_overrides_forward_is_not_fused() -> None:
    network = LeNet(channels=(2, 3), hidden=8).build().eval()
    x = torch.rand(2, 1, 28, 28)

    class Silent(LIF):
        def forward(self, currents: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros_like(super().forward(currents))

    network.body.neurons1 = Silent(Dynamics())
    assert not network(x).any()


@pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")
@pytest.mark.parametrize("after", ["pool", "nothing"])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_constant_input_filtered_inside_the_kernel_is_the_filtered_input(after: str, shifted: bool) -> None:
    torch.manual_seed(0)
    layer = LIF(Dynamics(4.0, 2.5), bptt())
    images = torch.rand(3, 5, 6, 8).contiguous(memory_format=torch.channels_last)
    bias = torch.rand(5, 1, 1, requires_grad=True)
    found = []
    for inside in (True, False):
        x = images.clone().requires_grad_()
        initial = bias if shifted else None
        gain = 4.4 if after == "pool" else None
        if inside:
            output = layer(x[None], FusionContext(gain, ConstantInput(6, 2.0, initial)))
        else:
            output = layer(ConstantCoding(6, 2.0)(x, initial), FusionContext(gain))
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        leaves = [x, bias] if shifted else [x]
        found.append((output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)))
    assert torch.equal(found[0][0], found[1][0])
    for got, expected in zip(found[0][1:], found[1][1:], strict=True):
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


class Doubled(OverTime):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Loudest(SumPool):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, 2)


class Squared(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


class Late(ConstantCoding):
    def forward(self, x: Tensor, initial: Tensor | None = None) -> Tensor:
        coded = super().forward(x)
        return torch.cat([torch.zeros_like(coded[:1]), coded[:-1]]).square()


def between(pool: nn.Module, convolution: nn.Module) -> list[nn.Module]:
    return [convolution, LIF(Dynamics()), pool, LIF(Dynamics())]


def changed(pool: SumPool, **settings: object) -> SumPool:
    for name, value in settings.items():
        setattr(pool, name, value)
    return pool


POOL, CONV = SumPool(2), nn.Conv2d(1, 1, 3, padding=1, bias=False)


@pytest.mark.parametrize(
    ("layers", "coding"),
    [
        (between(OverTime(SumPool(2)), OverTime(nn.Conv2d(1, 4, 3, bias=False))), ConstantCoding()),
        (between(OverTime(POOL, POOL), OverTime(CONV, CONV)), ConstantCoding()),
        (between(Doubled(SumPool(2)), Doubled(nn.Conv2d(1, 4, 3, bias=False))), ConstantCoding()),
        (between(OverTime(Loudest(2)), OverTime(Squared(1, 4, 3, bias=False))), ConstantCoding()),
        (between(OverTime(changed(SumPool(2), stride=1)), OverTime(nn.Conv2d(1, 4, 3))), ConstantCoding()),
        (between(OverTime(changed(SumPool(2), ceil_mode=True)), OverTime(nn.Conv2d(1, 4, 4, bias=False))), Late()),
        ([OverTime(nn.Conv2d(1, 4, 3, bias=False))], ConstantCoding()),
        ([], ConstantCoding()),
    ],
)
def test_a_body_is_its_layers_one_after_the_other_whatever_they_are(
    layers: list[nn.Module], coding: ConstantCoding
) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 1, 13, 13) * 4
    body = Body(*layers)
    for given in (x, x[:, None].expand(-1, coding.steps, -1, -1, -1)):
        expected = coding(given)
        for layer in layers:
            expected = layer(expected)
        assert torch.allclose(body.on_images(coding, given), expected, atol=1e-4)
        assert torch.allclose(body(coding(given)), expected, atol=1e-4)


def test_a_hook_on_the_body_sees_it() -> None:
    network = LeNet(channels=(2, 3), hidden=8).build().eval()
    seen: list[str] = []
    with network.body.register_forward_hook(lambda module, inputs, output: seen.append("body")):
        network(torch.rand(2, 1, 28, 28))
    assert seen == ["body"]


def test_a_hook_on_all_modules_sees_every_spiking_layer_and_changes_no_bit() -> None:
    """Estimators watch for strange layers that way, while other threads attack."""
    network = lif_network()
    x = images(3).requires_grad_()
    seen: list[nn.Module] = []

    def gradient() -> Tensor:
        return torch.autograd.grad(network(x).square().sum(), x)[0]

    before = gradient()
    with torch.nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: seen.append(module)):
        after = gradient()
    assert before.any() and torch.equal(before, after)
    assert set(neurons(network).values()) <= set(seen)
