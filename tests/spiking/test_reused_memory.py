"""Gradients written over currents that nobody else reads: the same bits, and never over what is still read."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from hosnn.nn.body import Body
from hosnn.nn.fusion import structure_changed, unfused
from hosnn.nn.layers import ConstantCoding, OverTime, SumPool
from hosnn.nn.neurons import LIF
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.kernels import backend, cpu
from hosnn.spiking.kernels.kernel_spec import ConstantInput, FusionContext
from hosnn.spiking.state import AdaptiveThreshold, Dynamics
from hosnn.spiking.surrogate import PotentialDependent

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")


def emitted(currents: Tensor, parts: list[Tensor], reusable: bool, rule: GradientRule, **context: Any) -> Tensor:
    fused = FusionContext(**context, input_reusable=reusable)
    return backend.run_layer(currents, Dynamics(), rule, AdaptiveThreshold(*parts), context=fused)


def inputs(shape: tuple[int, ...], steps: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    currents = torch.randn(shape, generator=generator).to(dtype)
    others = torch.rand(steps, *shape[2:], generator=generator), torch.rand(shape[2:], generator=generator) * 0.4
    return currents, list(others)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(3,), (17,), (65,), (1030,), (3, 5, 7), (64, 4, 2), (15, 6, 5), (12, 4, 4), (130, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    rule=st.sampled_from([bptt(), tssl_bp(), bptt(PotentialDependent())]),
    pooled=st.booleans(),
    constant=st.booleans(),
)
def test_gradients_are_the_same_bits(
    shape: tuple[int, ...], dtype: torch.dtype, rule: GradientRule, pooled: bool, constant: bool
) -> None:
    leaf, parts = inputs((1 if constant else 4, 3, *shape), 4, dtype)
    if pooled and len(shape) == 3:
        leaf = leaf.movedim(2, -1).contiguous().movedim(-1, 2)
    context = {
        "pool_gain": 4.4 if pooled and len(shape) == 3 else None,
        "constant": ConstantInput(4, 3.0) if constant else None,
    }
    found = []
    for reusable in (False, True):
        leaves = [part.clone().requires_grad_() for part in (leaf, *parts)]
        output = emitted(leaves[0] * 1.5, leaves[1:], reusable, rule, **context)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        found.append(torch.autograd.grad(output, leaves, weights, materialize_grads=True))
    for kept, spared in zip(*found, strict=True):
        assert torch.equal(kept, spared)


def places(reusable: bool, retain_graph: bool) -> tuple[int, int]:
    """Where the currents lie, and where their gradient."""
    leaf, parts = inputs((4, 3, 65), 4)
    currents = leaf.requires_grad_() * 1.5
    at: list[int] = []
    currents.register_hook(lambda gradient: at.append(gradient.data_ptr()))  # type: ignore[no-untyped-call]
    output = emitted(currents, parts, reusable, bptt())
    output.sum().backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
    return currents.data_ptr(), at[0]


def test_the_gradient_takes_the_place_of_reusable_currents_only_and_of_none_of_a_graph_that_is_kept() -> None:
    for reusable, retain_graph in ((True, False), (False, False), (True, True)):
        first, second = places(reusable, retain_graph)
        assert (first == second) is (reusable and not retain_graph)


def test_a_graph_that_is_kept_gives_its_gradient_again() -> None:
    leaf, parts = inputs((4, 3, 65), 4)
    leaf.requires_grad_()
    output = emitted(leaf * 1.5, parts, True, bptt()).sum()
    first, second, last = (torch.autograd.grad(output, leaf, retain_graph=again)[0] for again in (True, True, False))
    assert torch.equal(first, second) and torch.equal(first, last)


def test_currents_that_someone_needs_after_all_are_an_error_not_garbage() -> None:
    leaf, parts = inputs((4, 3, 65), 4)
    currents = leaf.requires_grad_().exp()  # whose way back needs them
    output = emitted(currents, parts, True, bptt())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()  # type: ignore[no-untyped-call]


def body() -> Body:
    torch.manual_seed(0)
    first, second = (nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in ((2, 16), (16, 32)))
    for convolution in (first, second):
        nn.init.normal_(convolution.weight, std=0.3)
    layers = [layer for each in (first, second) for layer in (OverTime(each), LIF(), OverTime(SumPool(2)))]
    return Body(*layers, OverTime(nn.Flatten(), nn.Linear(32 * 9, 20)), LIF())


def overwritten(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each layer's currents were, as they go backward."""
    reused: list[bool] = []
    backward = cpu.backward

    def noted(*arguments: Any, **options: Any) -> Any:
        reused.append(options["input_reusable"])
        return backward(*arguments, **options)

    monkeypatch.setattr(cpu, "backward", noted)
    return reused


def gradient(network: Body, images: Tensor) -> list[Tensor]:
    leaf = images.clone().requires_grad_()
    output = network.on_images(ConstantCoding(4), leaf)
    return list(torch.autograd.grad(output.square().sum(), (leaf, *network.parameters())))


def test_a_network_writes_over_what_its_convolutions_and_matrix_products_give(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = body(), torch.rand(3, 2, 12, 12)
    reused = overwritten(monkeypatch)
    fast = gradient(network, images)
    assert reused == [True, True, True]
    monkeypatch.setattr("hosnn.nn.body._output_reusable", lambda layer: False)
    structure_changed()
    for one, other in zip(fast, gradient(network, images), strict=True):
        assert torch.equal(one, other)
    assert reused == [True, True, True, False, False, False]
    with unfused(network):
        gradient(network, images)
    assert reused[6:] == [False, False, False]


def test_what_hooks_may_have_kept_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, reused = body(), torch.rand(3, 2, 12, 12), overwritten(monkeypatch)
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append((output.detach(), output.detach().clone()))

    handle = register_module_forward_hook(keep)
    try:
        gradient(network, images)
    finally:
        handle.remove()
    handle = network.get_submodule("3.0").register_forward_hook(keep)
    gradient(network, images)
    handle.remove()
    assert kept and all(torch.equal(output, copy) for output, copy in kept)
    assert reused == [False, False, False, True, False, True]
    gradient(network, images)
    assert reused[6:] == [True, True, True]
