"""What runs together is decided once, again after every change, and gives what the modules give one by one."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hosnn
from hosnn.estimators import BPTR, with_rule
from hosnn.nn.body import Body, NeuronBlock
from hosnn.nn.convnet import ConvNet
from hosnn.nn.fusion import unfused
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork, SumPool
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.nn.resnet import ResNet
from hosnn.signature.homeostasis import replace_layer
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.kernels import backend, cpu
from hosnn.spiking.kernels.kernel_spec import NOTHING_FUSED, FusionContext

needs_kernel = pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")

SOURCE = str(Path(hosnn.__file__).parent)
SHIPPED = Path(hosnn.__file__).parents[2] / "models" / "fashion-mnist" / "homeostatic-fgsm"


def network(*layers: nn.Module, channels: int = 2) -> SpikingNetwork:
    return SpikingNetwork(
        Normalise((0.5,) * channels, (0.25,) * channels), ConstantCoding(4), Body(*layers), MeanReadout()
    )


def pooled_network(pool: nn.Module) -> SpikingNetwork:
    torch.manual_seed(0)
    return network(
        OverTime(nn.Conv2d(2, 8, 3, padding=1, bias=False)), LIF(), OverTime(pool, nn.Flatten()), LIF()
    ).eval()


def results(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits, and their gradient with respect to the images and all parameters."""
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), [leaf, *model.parameters()])]


def close(got: list[Tensor], expected: list[Tensor]) -> None:
    assert expected[0].any(), "a silent network proves nothing"
    for one, other in zip(got, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max()))


@needs_kernel
@pytest.mark.parametrize("gradient", [False, True])
def test_an_image_takes_few_python_calls_and_a_layer_few_hops(gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hosnn.load(SHIPPED).eval()
    image = torch.rand(1, 1, 28, 28, requires_grad=gradient)
    native: Any = cpu.library()
    hops: list[int] = []

    class Counting:
        """The native library, which notes how far below `LIF.forward` it is called."""

        hosnn_units = native.hosnn_units

        @staticmethod
        def hosnn_forward(*arguments: Any) -> int:
            frame, count = sys._getframe(1), 1
            while frame.f_code is not LIF.forward.__code__:
                count += frame.f_code.co_filename.startswith(SOURCE)
                assert frame.f_back is not None
                frame = frame.f_back
            hops.append(count)
            return int(native.hosnn_forward(*arguments))

    calls = 0

    def count(frame: Any, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(SOURCE)

    with torch.set_grad_enabled(gradient):
        model(image)
        sys.setprofile(count)
        try:
            model(image)
        finally:
            sys.setprofile(None)
        monkeypatch.setattr(cpu, "library", lambda: Counting)
        model(image)
    assert calls < 120
    assert len(hops) == 4 and max(hops) <= 4


Make = Callable[[], list[nn.Module]]


def convolution(bias: bool = True, **options: Any) -> OverTime:
    inner = nn.Conv2d(2, 8, 3, padding=1, bias=bias, **options)
    nn.init.normal_(inner.weight, std=0.5)
    return OverTime(inner)


def norm(channels: int, steps: int | None = None) -> TimeBatchNorm:
    layer = TimeBatchNorm(channels, steps)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    for name, buffer in layer.named_buffers():
        if name.endswith("mean"):
            nn.init.uniform_(buffer, -1, 0)
        if name.endswith("var"):
            nn.init.uniform_(buffer, 0.1, 1)
    return layer


def head() -> list[nn.Module]:
    return [OverTime(nn.Flatten(), nn.LazyLinear(10)), LIF()]


BUILT: dict[str, Make] = {
    "bias": lambda: [convolution(), LIF(), OverTime(SumPool(2)), *head()],
    "bias, nothing pooled": lambda: [convolution(), LIF(), *head()],
    "normalised": lambda: [convolution(False), norm(8), LIF(), OverTime(SumPool(2)), *head()],
    "bias, normalised": lambda: [convolution(), norm(8), LIF(), OverTime(nn.AvgPool2d(2)), *head()],
    "bias, normalised per step": lambda: [convolution(), norm(8, 4), LIF(), OverTime(SumPool(2)), *head()],
    "average pooling": lambda: [convolution(False), LIF(), OverTime(nn.AvgPool2d(2), nn.Flatten()), *head()],
    "max pooling": lambda: [convolution(), LIF(), OverTime(nn.MaxPool2d(2)), *head()],
    "stride": lambda: [convolution(stride=2), LIF(), *head()],
    "dense": lambda: [OverTime(nn.Flatten(), nn.LazyLinear(20)), LIF(), *head()],
    "dense, no bias": lambda: [OverTime(nn.Flatten(), nn.LazyLinear(20, bias=False)), LIF(), *head()],
    "dense, no neurons": lambda: [OverTime(nn.Flatten(), nn.LazyLinear(20)), *head()],
    "no neurons": lambda: [convolution(), *head()],
    "two convolutions": lambda: [
        *(convolution(), LIF(), OverTime(nn.Conv2d(8, 8, 3, stride=2)), norm(8), LIF()),
        *(OverTime(nn.AvgPool2d(2)), *head()),
    ],
}


def loud(model: SpikingNetwork, images: Tensor) -> None:
    """In eval mode, lazy layers with their sizes, and the last weights such that the output fires."""
    model.eval()(images)
    nn.init.normal_(next(layer for layer in model.modules() if isinstance(layer, nn.Linear)).weight)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("frames", [False, True], ids=["images", "frames"])
def test_what_people_build_gives_fused_what_it_gives_unfused(name: str, frames: bool) -> None:
    torch.manual_seed(3)
    model, images = network(*BUILT[name]()), torch.rand(3, 2, 10, 10)
    if frames:
        images = images[:, None] * torch.linspace(0.5, 1, 4)[None, :, None, None, None]
    loud(model, images)
    with unfused(model):
        expected = results(model, images)
    close(results(model, images), expected)
    with backend.choose("eager"), unfused(model):
        close(results(model, images), expected)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("frames", [False, True], ids=["images", "frames"])
def test_outputs_keep_their_bits_on_every_backend(name: str, frames: bool) -> None:
    torch.manual_seed(4)
    model, images = network(*BUILT[name]()), torch.rand(20, 2, 10, 10)
    if frames:
        images = images[:, None].repeat(1, 4, 1, 1, 1)
    loud(model, images)
    with torch.no_grad():
        expected = model(images)
        with backend.choose("eager"):
            assert torch.equal(model(images), expected)
    assert torch.equal(with_rule(model, BPTR())(images.requires_grad_()), expected)


@needs_kernel
@pytest.mark.parametrize("name", ["bias", "normalised", "bias, normalised", "stride", "dense", "dense, no bias"])
def test_a_constant_image_is_weighted_once_whatever_follows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(*BUILT[name]())
    images = torch.rand(3, 2, 10, 10)
    model.eval()(images)
    batches: list[int] = []
    function = "linear" if name.startswith("dense") else "conv2d"
    forward, weight = getattr(functional, function), next(model.body.parameters())

    def noted(images: Tensor, weights: Tensor, *rest: Any) -> Tensor:
        if weights is weight:
            batches.append(len(images))
        return forward(images, weights, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(functional, function, noted)
    model(images)
    with unfused(model):
        model(images)
    assert batches == [3, 12]


@needs_kernel
@pytest.mark.parametrize("training", [False, True])
def test_residual_networks_reuse_their_sums(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = ResNet(blocks=(1, 1), width=8, image=(3, 8, 8)).build()
    images = torch.rand(4, 3, 8, 8)
    model(images)
    model.train(training)
    reused: list[bool] = []
    backward = cpu.backward

    def noted(*arguments: Any, **options: Any) -> Any:
        reused.append(options["input_reusable"])
        return backward(*arguments, **options)

    monkeypatch.setattr(cpu, "backward", noted)
    state = copy.deepcopy(model.state_dict())
    got = results(model, images)
    assert reused and all(reused)
    model.load_state_dict(state)
    with unfused(model):
        expected = results(model, images)
    assert not any(reused[len(reused) // 2 :])
    close(got, expected)


def blocks(model: SpikingNetwork) -> int:
    """How many poolings are fused now."""
    assert isinstance(model.body, Body)
    return sum(isinstance(b, NeuronBlock) and b.context.pool_gain is not None for b in model.body.plan().blocks)


def test_plans_notice_what_changes() -> None:
    model, images = pooled_network(SumPool(2)), torch.rand(3, 2, 8, 8)
    assert blocks(model) == 1
    changes: list[Callable[[Any], Any]] = [
        lambda net: replace_layer(net, "body.2.0", nn.MaxPool2d(2)),
        lambda net: setattr(net.body[2][0], "stride", 1),
        lambda net: net.body[2].insert(0, nn.Identity()),
        lambda net: net.body.insert(2, OverTime(nn.Identity())),
        lambda net: net.body.__delitem__(2),
        lambda net: setattr(net.body[1], "forward", lambda currents: currents),
        lambda net: net.body[1].register_forward_hook(lambda *_: None),
        lambda net: net.body[2][0].register_forward_hook(lambda *_: None),
        lambda net: setattr(net.body, "fused", False),
    ]
    for change in changes:
        changed: Any = copy.deepcopy(model)
        assert blocks(changed) == 1
        change(changed)
        assert blocks(changed) == 0
        assert blocks(model) == 1, "a copy is another network"
        x: Any = changed.coding(changed.normalise(images))
        for layer in changed.body.children():
            x = layer(x)
        assert torch.allclose(changed.outputs(images), x, atol=1e-5)


def test_plans_notice_layers_that_are_replaced_in_place() -> None:
    model, images = pooled_network(SumPool(2)), torch.rand(3, 2, 8, 8)
    before = model(images)
    replace_layer(model, "body.1", TALIF(torch.full((4, 8, 8, 8), -2.0), 0.5))
    assert blocks(model) == 1 and not torch.equal(model(images), before)
    replace_layer(model, "body.1", LIF())
    replace_layer(model, "body.0", OverTime(nn.Conv2d(2, 8, 3, padding=1)))
    with unfused(model):
        expected = results(model, images)
    close(results(model, images), expected)


def test_a_hook_that_is_removed_leaves_a_network_fused() -> None:
    model = pooled_network(SumPool(2))
    with model.get_submodule("body.1").register_forward_hook(lambda *_: None):
        assert blocks(model) == 0
    assert blocks(model) == 1


def test_a_replica_of_a_network_does_not_run_the_layers_of_the_original() -> None:
    """As torch's DataParallel copies modules: the attributes, then other layers."""
    model: Any = pooled_network(SumPool(2))
    blocks(model)
    replica = model.body._replicate_for_data_parallel()
    replica._modules["1"] = LIF(rule=bptt())
    assert replica.plan().blocks[1].neurons is replica._modules["1"]


def test_a_subclass_is_fused_if_its_forward_takes_a_context() -> None:
    class Plain(LIF):
        def forward(self, currents: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * super().forward(currents)

    class Fusible(LIF):
        def forward(self, currents: Tensor, context: FusionContext = NOTHING_FUSED) -> Tensor:
            return 2 * super().forward(currents, context)

    images, logits = torch.rand(3, 2, 8, 8), []
    for kind, fused in ((Plain, 0), (Fusible, 1)):
        model = pooled_network(SumPool(2))
        replace_layer(model, "body.1", kind())
        assert blocks(model) == fused
        logits.append(model(images))
    torch.testing.assert_close(*logits)


def test_the_switch_is_thrown_back() -> None:
    model = ResNet(blocks=(1,), width=4, image=(3, 8, 8)).build()
    planned = [module for module in model.modules() if hasattr(module, "fused")]
    assert len(planned) == 4
    planned[1].fused = False  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError), unfused(model):
        assert not any(module.fused for module in planned)
        raise ZeroDivisionError
    assert [module.fused for module in planned] == [True, False, True, True]


@needs_kernel
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("spiking_output", [False, True])
def test_a_compiled_network_is_the_network(spiking_output: bool) -> None:
    torch.manual_seed(0)
    model = LeNet(channels=(2, 3), hidden=8, spiking_output=spiking_output).build().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    images = torch.rand(2, 1, 28, 28)
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="aot_eager", dynamic=False)
    expected = results(model, images)
    got = [compiled(images)]
    leaf = images.clone().requires_grad_()
    got += torch.autograd.grad(compiled(leaf).square().sum(), [leaf, *model.parameters()])
    close(got, expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_hook_leaves_the_memory_order_of_the_first_convolution(channels_last: bool) -> None:
    """A convolution rounds differently in another memory order, and a signature is recorded through hooks."""
    images = torch.rand(3, 2, 12, 12)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    model, seen = pooled_network(SumPool(2)), list[tuple[int, ...]]()
    neurons = next(layer for layer in model.modules() if isinstance(layer, LIF))
    neurons.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].stride()))
    with torch.no_grad():
        model(images)
    assert seen[0][-3] == 1, "channels are innermost"


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_normalisation_in_its_own_memory_order(
    frames: bool, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's backward pass of batch normalisation is ten times as slow where the two orders differ."""
    orders: list[tuple[Any, Any]] = []
    normalise = TimeBatchNorm._normalised

    def watched(self: TimeBatchNorm, number: int, currents: Tensor) -> Tensor:
        output = normalise(self, number, currents)
        output.register_hook(lambda gradient: orders.append((output.stride(), gradient.stride())))  # type: ignore[no-untyped-call]
        return output

    monkeypatch.setattr(TimeBatchNorm, "_normalised", watched)  # a hook of the module would prevent fusion
    network = ConvNet("16C3-P2-32C3-P2-8-3", (3, 32, 32), steps=3, norm_dense=False).build().train(training)
    x = torch.rand(4, 3, 3, 32, 32) if frames else torch.rand(4, 3, 32, 32)
    network(x.requires_grad_()).sum().backward()
    assert len([forward for forward, _ in orders if len(forward) == 4]) >= 2
    assert all(forward == backward for forward, backward in orders if forward[0] > 32)
