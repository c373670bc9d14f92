"""Networks by structure and ResNets: their sizes, their layers, and that they are spiking networks like any other."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.estimators.rules import with_rule
from hosnn.nn.blueprint import Blueprint
from hosnn.nn.convnet import ConvNet, paper_cifar10, paper_cifar100, parse, small_convnet, vgg11
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, hidden_neurons, neurons
from hosnn.nn.normalisation import Norm
from hosnn.nn.resnet import ResNet, resnet18
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.gradient_rule import bptt, tssl_bp
from hosnn.spiking.kernels import backend, cpu

PAPER = ConvNet("4C3-6C3-P2-8C3-P2-6C3-12-4", image=(3, 8, 8))
VGG = replace(vgg11(4), structure="8C3-P2-8C3-12C3-P2-16C3-16C3-32-32-4", image=(3, 8, 8))
RESIDUAL = ResNet(blocks=(2, 1), width=4, classes=4, image=(3, 8, 8), steps=3)
TINY = [PAPER, VGG, RESIDUAL]
EVERY = pytest.mark.parametrize("blueprint", TINY, ids=["paper", "vgg", "resnet"])
NORMS = pytest.mark.parametrize("norm", Norm, ids=lambda norm: norm.value)


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def built(blueprint: Blueprint, seed: int = 0) -> SpikingNetwork:
    torch.manual_seed(seed)
    return blueprint.build().eval()


def weights(blueprint: Blueprint) -> int:
    with torch.device("meta"):  # shapes without memory
        return sum(parameter.numel() for parameter in blueprint.build().parameters())


CONVOLUTIONS = 9 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024 * 512)
PAPER_NORMS = 2 * (128 + 256 + 512 + 1024 + 512)
STAGES = 9 * (4 * 64 * 64 + 64 * 128 + 3 * 128 * 128 + 128 * 256 + 3 * 256 * 256 + 256 * 512 + 3 * 512 * 512)
SHORTCUTS = 64 * 128 + 128 * 256 + 256 * 512
RESNET_NORMS = 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
SIZES: dict[str, tuple[Blueprint, int]] = {
    "paper CIFAR-10": (
        paper_cifar10(),
        CONVOLUTIONS + 512 * 8 * 8 * 1024 + 1024 * 512 + 512 * 10 + PAPER_NORMS + 2 * (1024 + 512),
    ),
    "paper CIFAR-100": (
        paper_cifar100(),
        CONVOLUTIONS + 512 * 8 * 8 * 1024 + 1024 * 1024 + 1024 * 100 + PAPER_NORMS + 2 * (1024 + 1024),
    ),
    "VGG-11": (
        vgg11(),
        9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512)
        + 512 * 4 * 4 * 4096
        + 4096 * 4096
        + 4096 * 10
        + 2 * (64 + 128 + 256 + 5 * 512),
    ),
    "ResNet-18": (resnet18(), 9 * 3 * 64 + STAGES + SHORTCUTS + RESNET_NORMS + 512 * 10),
    "small": (
        small_convnet(),
        9 * (3 * 32 + 32 * 64 + 64 * 128) + 128 * 4 * 4 * 256 + 256 * 10 + 2 * (32 + 64 + 128 + 256),
    ),
    "small, per step": (
        replace(small_convnet(), norm=Norm.PER_STEP),
        9 * (3 * 32 + 32 * 64 + 64 * 128) + 128 * 4 * 4 * 256 + 256 * 10 + 5 * 2 * (32 + 64 + 128 + 256),
    ),
}


@pytest.mark.parametrize(("blueprint", "size"), SIZES.values(), ids=SIZES)
def test_published_networks_have_the_sizes_worked_out_by_hand(blueprint: Blueprint, size: int) -> None:
    assert weights(blueprint) == size


def test_the_small_network_is_small_and_resnet_18_is_the_fields() -> None:
    assert weights(small_convnet()) <= 1_000_000
    assert weights(resnet18()) == 11_173_962 - 10, "the field's count, less the bias of its dense layer"
    assert resnet18().title == "ResNet-18"


def test_the_papers_network_has_as_many_adapting_neurons_as_the_authors_say() -> None:
    """624 k rates k, and 3.1 M values of the signature over 5 time steps."""
    sizes: list[int] = []
    with torch.device("meta"):
        network = paper_cifar10().build().eval()
        for layer in hidden_neurons(network).values():
            layer.register_forward_pre_hook(lambda _, given: sizes.append(given[0][0, 0].numel()))
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    spatial = (128 + 256) * 32 * 32 + 512 * 16 * 16 + (1024 + 512) * 8 * 8
    assert sum(sizes) == spatial + 1024 + 512 == 624_128


@pytest.mark.parametrize("classes", [10, 100])
def test_networks_take_the_classes_asked_for(classes: int) -> None:
    for blueprint in (vgg11(classes), small_convnet(classes), resnet18(classes)):
        assert blueprint.classes == classes
    assert (paper_cifar10().classes, paper_cifar100().classes) == (10, 100)


@EVERY
@NORMS
@pytest.mark.parametrize("training", [False, True])
def test_every_layer_fires_from_the_start_and_learns(blueprint: Any, norm: Norm, training: bool) -> None:
    network = built(replace(blueprint, norm=norm)).train(training)
    fired: list[float] = []
    for layer in neurons(network).values():
        layer.register_forward_pre_hook(
            lambda module, given: fired.append(module.trajectory(given[0]).spikes.mean().item())
        )
    logits = network(images(16))
    assert logits.shape == (16, 4)
    assert len(fired) == len(neurons(network)) and min(fired) > 0.01, fired
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 or training or norm is not Norm.PER_STEP:  # at a first step, deep layers may be silent
            assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize("make", [vgg11, small_convnet, resnet18, paper_cifar10], ids=lambda make: make.__name__)
def test_deep_and_narrow_all_layers_fire_in_either_mode(make: Any) -> None:
    blueprint = make()
    narrow: Any = replace(blueprint, image=(3, 16, 16), dropout=0.0)
    if isinstance(narrow, ConvNet):
        convolutions, dense = parse(narrow.structure)
        parts = [f"{layer.channels // 8}C3" + ("-P2" if layer.pool > 1 else "") for layer in convolutions]
        narrow = replace(narrow, structure="-".join([*parts, *(str(size // 8) for size in dense[:-1]), "10"]))
    else:
        narrow = replace(narrow, width=8)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        network = built(narrow).train(training)
        fired: list[float] = []
        for layer in neurons(network).values():
            layer.register_forward_pre_hook(
                lambda module, given, fired=fired: fired.append(module.trajectory(given[0]).spikes.mean().item())
            )
        network(x)
        assert min(fired) > 0.01, fired


@EVERY
@NORMS
def test_calibrated_and_homeostatic_they_are_still_functions_of_their_input(blueprint: Any, norm: Norm) -> None:
    plain = built(replace(blueprint, norm=norm))
    twin = homeostatic(plain, calibrate(plain, [images(8, seed=9)]), 0.2)
    adapting = [layer for layer in neurons(twin).values() if isinstance(layer, TALIF)]
    assert len(adapting) == len(hidden_neurons(plain)) == len(neurons(plain)) - blueprint.spiking_output
    x = images(6)
    with torch.no_grad():
        whole = twin(x)
        assert torch.equal(twin(x), whole) and not torch.equal(whole, plain(x))
        torch.testing.assert_close(torch.cat([twin(x[:2]), twin(x[2:])]), whole, rtol=0, atol=1e-5)
        frames = x[:, None].expand(-1, blueprint.steps, -1, -1, -1)
        torch.testing.assert_close(twin.double()(frames.double()), twin(x.double()), rtol=0, atol=1e-12)
        assert twin.outputs(x.double()).shape == (blueprint.steps, 6, 4)


@pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")
@EVERY
@NORMS
@pytest.mark.parametrize("training", [False, True])
def test_fused_they_give_what_their_layers_give_one_after_the_other(blueprint: Any, norm: Norm, training: bool) -> None:
    network = built(replace(blueprint, norm=norm, dropout=0.0)).train(training)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found: list[tuple[Tensor, ...]] = []
    for how in ("eager", "cpu"):
        network.load_state_dict(state)
        x = images().requires_grad_()
        with backend.choose(how):
            outputs = network.outputs(x)
            gradients = torch.autograd.grad(outputs.square().sum(), [x, *network.parameters()])
        found.append((outputs.detach(), *gradients))
    assert torch.equal(found[0][0], found[1][0])
    for got, expected in zip(found[1][1:], found[0][1:], strict=True):
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@EVERY
def test_estimators_find_every_layer(blueprint: Any) -> None:
    network, other = built(blueprint), bptt() if blueprint.rule == tssl_bp() else tssl_bp()
    twin = with_rule(network, other)
    assert {layer.rule == other for layer in neurons(twin).values()} == {True}
    assert torch.equal(twin(images()), network(images()))
    found = []
    for model in (network, twin):
        x = images().requires_grad_()
        found.append(torch.autograd.grad(model(x).square().sum(), x)[0])
    assert found[0].any() and found[1].any() and not torch.equal(*found)


def test_a_block_fires_on_the_sum_of_its_ways() -> None:
    network = built(RESIDUAL)
    block = network.body.get_submodule("stage2_1")
    x = torch.rand(3, 2, 4, 8, 8)
    expected = block.neurons(block.main(x) + block.shortcut(x))  # type: ignore[operator]
    assert torch.equal(block(x), expected) and block(x).shape == (3, 2, 8, 4, 4)
    same = network.body.get_submodule("stage1_2")
    assert torch.equal(same(x), same.neurons(same.main(x) + x))  # type: ignore[operator]


def test_names_of_tensors_stay_so_that_checkpoints_stay() -> None:
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(ConvNet("2C3-P2-4-3", image=(1, 4, 4), mean=(0.5,), std=(0.5,)).build().state_dict()) == [
        "body.conv1.0.weight",
        *(f"body.norm1.each.0.{name}" for name in norm),
        "body.dense2.1.weight",
        *(f"body.norm2.each.0.{name}" for name in norm),
        "body.dense3.1.weight",
    ]
    assert list(replace(RESIDUAL, blocks=(1, 1), norm=Norm.NONE).build().state_dict()) == [
        "body.conv0.0.weight",
        "body.stage1_1.main.conv1.0.weight",
        "body.stage1_1.main.conv2.0.weight",
        "body.stage2_1.main.conv1.0.weight",
        "body.stage2_1.main.conv2.0.weight",
        "body.stage2_1.shortcut.conv.0.weight",
        "body.dense.2.weight",
    ]
    steps = [name for name in replace(PAPER, norm=Norm.PER_STEP).build().state_dict() if ".norm1." in name]
    assert steps[::5] == [f"body.norm1.each.{t}.weight" for t in range(5)]


def test_a_structure_is_read_as_it_is_written() -> None:
    assert parse("128C3-256C5-P2-1024-10") == (((128, 3, 1), (256, 5, 2)), (1024, 10))
    assert parse("10") == ((), (10,))
    layers = [name for name, layer in built(PAPER).body.named_children() if not isinstance(layer, nn.Dropout)]
    assert layers[:8] == ["conv1", "norm1", "neurons1", "dropout1", "conv2", "norm2", "neurons2", "pool2"]
    assert layers[-3:] == ["dropout5", "dense6", "neurons6"]
    assert all(layer.fixed_threshold is (name == "body.neurons6") for name, layer in neurons(built(PAPER)).items())


@pytest.mark.parametrize(
    ("structure", "named"),
    [
        ("32C3-P2-64X3-10", "'64X3' is no layer"),
        ("32c3-10", "'32c3' is no layer"),
        ("32C3--10", "'' is no layer"),
        ("32C3-0-10", "'0' is no layer"),
        ("32C3-128-P2-10", "'P2' comes after a dense layer"),
        ("32C3-128-64C3-10", "'64C3' comes after a dense layer"),
        ("32C4-10", "'32C4' has a kernel of even size"),
        ("P2-32C3-10", "'P2' does not follow a convolution"),
        ("32C3-P2-P2-10", "'P2' does not follow a convolution"),
        ("32C3-P2", "its end is no number of classes"),
    ],
)
def test_what_is_no_structure_is_refused_by_name(structure: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ConvNet(structure)
    assert f"got the structure {structure!r}, in which {named}" in str(refused.value)
    assert "'32C3-P2-64C3-P2-128-10'" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (3, 2, 2)}, "images of 2 x 2"),
        ({"image": (1, 8, 8)}, "3 means and 3 stds for 1 channels"),
        ({"image": (3, 8)}, "image"),
        ({"steps": 0}, "steps 0"),
        ({"steps": 10**9}, "1 to 100,000 steps"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"weight_scale": 0.0}, "weight_scale 0.0"),
        ({"pool_gain": 0.0}, "pool_gain 0.0"),
    ],
)
def test_sizes_that_make_no_network_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PAPER, **change)
    if not change.keys() & {"pool_gain"} and change != {"image": (3, 2, 2)}:
        with pytest.raises(ConfigError, match=message):
            replace(RESIDUAL, **change)


def test_networks_for_small_images_say_that_padding_helps() -> None:
    for unpadded in (lambda: LeNet(image=(1, 12, 12)), lambda: ConvNet("4C5-P2-4C5-P2-9-2", (3, 12, 12), padded=False)):
        with pytest.raises(ConfigError, match=r"padding 2 keeps|or padded = true"):
            unpadded()
    assert LeNet(image=(1, 12, 12), padding=2).build()
    assert ConvNet("4C5-P2-4C5-P2-9-2", (3, 12, 12)).build()


def test_a_resnet_without_blocks_is_refused() -> None:
    for wrong in ({"blocks": ()}, {"blocks": (2, 0)}, {"width": 0}, {"classes": 0}):
        with pytest.raises(ConfigError, match="at least one stage"):
            replace(RESIDUAL, **wrong)


def test_layers_are_of_the_kind_that_can_be_told_a_rule() -> None:
    assert all(type(layer) is LIF for blueprint in TINY for layer in neurons(blueprint.build()).values())  # type: ignore[attr-defined]
