"""The Triton kernels against the eager step: on a GPU where there is one, else interpreted.

Both run the same tests, on small layers, as the interpreter is slow; where there is a GPU, all are marked `gpu`.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.nn.layers import SumPool
from hosnn.spiking.coding import encode_constant
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.kernels import cuda, eager
from hosnn.spiking.kernels.kernel_spec import PRECOMPUTED, KernelOutput, KernelSpec, kernel_spec
from hosnn.spiking.state import Reset, Threshold
from hosnn.spiking.surrogate import SURROGATES, Sigmoid
from tests.spiking.test_kernels import RULES, Layer, far_from_threshold, layer

triton = pytest.importorskip("triton")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if ON_GPU else []
only_on_gpu = pytest.mark.skipif(not ON_GPU, reason="there is no CUDA device")

if not ON_GPU:  # Triton asks for this as it reads the kernels; nobody else in this process shall see it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        assert cuda.available()

SUMS = ("adaptation", "target", "membrane_sum", "current_sum")
KINDS: tuple[dict[str, Any], ...] = ({}, {"adaptive": False}, {"static": True})
"""Of thresholds: adaptive, fixed, static."""

SHAPES = ((1,), (130,), (600,), (5, 7, 3))
"""Less than a block, odd tails, more than a block, images."""


def on_device(given: Layer) -> Layer:
    signature, adaptation = (None if part is None else part.to(DEVICE) for part in (given.signature, given.adaptation))
    return Layer(given.currents.to(DEVICE), signature, adaptation, given.dynamics)


def inputs(given: Layer) -> tuple[Tensor, Threshold]:
    there = on_device(given)
    return there.currents, there.threshold


def emitted(given: Layer, rule: GradientRule, emit: KernelOutput) -> Tensor:
    """By the eager step."""
    if emit is KernelOutput.SPIKES:
        return eager.spikes(*given.arguments, rule, given.threshold)
    if emit is KernelOutput.MEMBRANE:
        return eager.trajectory(*given.arguments, rule, given.threshold).membrane
    if emit is KernelOutput.TRACES:
        return eager.traces(*given.arguments, rule, given.threshold)
    step = eager.trajectory(*given.arguments, rule, given.threshold)
    return step.membrane - (given.dynamics.threshold if rule.at_resting_threshold else step.threshold)


def weighted(
    given: Layer, rule: GradientRule, emit: KernelOutput = KernelOutput.TRACES
) -> tuple[Tensor, list[Tensor | None]]:
    """Fixed random dL/d output, and the eager dL/dI, dL/dk, dL/du* (or dL/dθ), of what there is."""
    there = on_device(given)
    values = {"currents": there.currents, "adaptation": there.adaptation, "signature": there.signature}
    leaves: dict[str, Any] = {n: part.clone().requires_grad_() for n, part in values.items() if part is not None}
    parts = list(leaves.values())
    output = emitted(replace(on_device(given), **leaves), rule, emit)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    return weights, list(torch.autograd.grad((output * weights).sum(), parts, allow_unused=True))


def gradients(
    given: Layer, rule: GradientRule, weights: Tensor, emit: KernelOutput = KernelOutput.TRACES
) -> list[Tensor | None]:
    """dL/dI, dL/dk, dL/du* by the kernel."""
    spec = kernel_spec(given.dynamics, rule, emit)
    wanted = SUMS if given.adaptation is not None else SUMS[1:2] if given.signature is not None else ()
    derivative = None
    if spec.surrogate == PRECOMPUTED:
        distance = cuda.forward(kernel_spec(given.dynamics, rule, KernelOutput.DISTANCE), *inputs(given))
        surrogate = rule.surrogate_at(given.dynamics.threshold)
        derivative = torch.stack([surrogate.derivative(x) for x in distance])
    found = cuda.backward(spec, weights.to(given.currents.dtype), *inputs(given), None, derivative, wanted)
    of_threshold = [(found.adaptation, given.adaptation), (found.target, given.signature)]
    shaped = [
        None if got is None or of is None else got.sum_to_size(of.shape) for got, of in of_threshold if of is not None
    ]
    return [found.currents, *(shaped if rule.threshold else [None] * len(shaped))]


def agree(given: list[Tensor | None], expected: list[Tensor | None], within: float = 1e-5) -> None:
    for got, right in zip(given, expected, strict=True):
        assert (got is None) == (right is None)
        if got is not None and right is not None:
            assert got.shape == right.shape
            assert (got - right).abs().max() <= within * right.abs().max()


def decided(**options: Any) -> Layer:
    """A layer where float32 and float64 spike alike."""
    return next(found for seed in range(200) if far_from_threshold(found := layer(seed, **options)))


@pytest.mark.parametrize("emit", list(KernelOutput))
@pytest.mark.parametrize("reset", list(Reset))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_forward_has_the_bits_of_the_specification(kind: dict[str, Any], reset: Reset, emit: KernelOutput) -> None:
    sizes = [(1, SHAPES[0]), (4, SHAPES[1]), (9, SHAPES[2]), (4, SHAPES[3])]
    every_kind_and_reset_meets_every_size = (int(emit) + KINDS.index(kind) + (reset is Reset.SOFT)) % 4
    for steps, shape in sizes[every_kind_and_reset_meets_every_size:][:1]:
        given = layer(steps, steps, 2, shape, reset=reset, **kind)
        found = cuda.forward(kernel_spec(given.dynamics, bptt(), emit), *inputs(given))
        assert torch.equal(found, emitted(on_device(given), bptt(), emit))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("reset", list(Reset))
def test_every_rule_and_reset_gives_the_gradients_of_float64(rule: GradientRule, reset: Reset) -> None:
    static = (RULES.index(rule) + (reset is Reset.SOFT)) % 2 == 0
    given = decided(steps=5, batch=2, shape=(7, 3, 3), reset=reset, static=static)
    weights, wide = weighted(given.to(torch.float64), replace(rule, local_adaptation=False))
    agree(gradients(given, replace(rule, local_adaptation=False), weights), wide)


@pytest.mark.parametrize("rule", [bptt(surrogate()) for surrogate in SURROGATES], ids=str)
def test_nan_stays_nan(rule: GradientRule) -> None:
    given = layer(0, 5, 2, (7,))
    given.currents[2, 1, 3] = float("nan")
    weights, expected = weighted(given, replace(rule, local_adaptation=False))
    got = gradients(given, replace(rule, local_adaptation=False), weights)
    assert [None if part is None else int(part.isnan().sum()) for part in got] == [
        None if part is None else int(part.isnan().sum()) for part in expected
    ]


@pytest.mark.parametrize("steps", range(1, 10))
def test_any_length_and_size(steps: int) -> None:
    for adaptive, shape, emit in ((True, (300,), KernelOutput.TRACES), (False, (5, 3, 2), KernelOutput.SPIKES)):
        given = decided(steps=steps, batch=1 + steps % 3, shape=shape, adaptive=adaptive)
        weights, wide = weighted(given.to(torch.float64), bptt(), emit)
        agree(gradients(given, bptt(), weights, emit), wide)


@pytest.mark.parametrize(("steps", "reset"), [(16, Reset.SOFT), (17, Reset.HARD), (24, Reset.SOFT)])
def test_longer_runs_go_in_chunks(steps: int, reset: Reset) -> None:
    given = decided(steps=steps, batch=3, shape=(35,), reset=reset)
    traces = cuda.forward(kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES), *inputs(given))
    assert torch.equal(traces, emitted(on_device(given), bptt(), KernelOutput.TRACES))
    weights, wide = weighted(given.to(torch.float64), bptt())
    agree(gradients(given, bptt(), weights), wide)


@pytest.mark.parametrize("per", ["neuron", "channel", "layer"])
def test_one_k_serves_a_neuron_a_channel_or_a_layer(per: str) -> None:
    given = decided(batch=2, shape=(3, 5, 7), per=per)
    weights, wide = weighted(given.to(torch.float64), bptt())
    agree(gradients(given, bptt(), weights), wide)


@pytest.mark.parametrize("programs", [1, 2, 4, 10_000])
def test_sums_do_not_depend_on_how_the_batch_is_split(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MIN_PROGRAMS", programs)
    given = decided(batch=5, shape=(65,))
    weights, wide = weighted(given.to(torch.float64), bptt())
    agree(gradients(given, bptt(), weights), wide)


def test_sums_for_the_local_rule_of_k() -> None:
    given = layer(batch=5, shape=(3, 5, 7))
    weights, expected = weighted(given, tssl_bp())
    found = cuda.backward(
        kernel_spec(given.dynamics, tssl_bp(), KernelOutput.TRACES), weights, *inputs(given), wanted=SUMS[2:]
    )
    run = eager.trajectory(given.currents, given.dynamics, bptt(), given.threshold)
    assert expected[0] is not None and found.adaptation is None and found.target is None
    agree([found.membrane_sum, found.current_sum], [run.membrane.sum((0, 1)).to(DEVICE), expected[0].sum((0, 1))])


@pytest.mark.parametrize(
    "laid",
    [
        lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        lambda x: x.permute(4, 0, 2, 1, 3).contiguous().permute(1, 3, 2, 4, 0),
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], 3)[:, :, :, : x.shape[3]],
    ],
    ids=["channels last", "shuffled", "every other", "batch first", "part of a row"],
)
def test_any_layout_in_memory_gives_the_same(laid: Any) -> None:
    given = layer(shape=(5, 4, 6))
    moved = replace(given, currents=laid(given.currents))
    found = cuda.forward(kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES), *inputs(moved))
    assert torch.equal(found, emitted(on_device(given), bptt(), KernelOutput.TRACES))
    weights, expected = weighted(given, bptt())
    agree(gradients(moved, bptt(), weights), expected)


@pytest.mark.parametrize(
    ("shape", "steps", "kind"),
    [((2, 4, 4), 18, KINDS[0]), ((130, 2, 2), 4, KINDS[1]), ((3, 5, 4), 4, KINDS[2]), ((3, 4, 7), 4, KINDS[0])],
)
def test_pooling_on_the_way_is_pooling_afterwards(
    shape: tuple[int, int, int], steps: int, kind: dict[str, Any]
) -> None:
    given = layer(steps=steps, batch=2, shape=shape, **kind)
    there = on_device(given)
    parts = [part.requires_grad_() for part in (there.currents, there.signature, there.adaptation) if part is not None]
    traces = eager.traces(there.currents, given.dynamics, bptt(), there.threshold)
    pooled = SumPool(2, 1.1)(traces.flatten(0, 1)).view(*traces.shape[:3], shape[1] // 2, shape[2] // 2)
    spec = kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES, 1.1 * 4)
    assert torch.equal(cuda.forward(spec, *inputs(given)), pooled)
    weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    expected = torch.autograd.grad((pooled * weights).sum(), parts)
    wanted = SUMS[: len(parts) - 1] if "static" not in kind else SUMS[1:2]
    found = cuda.backward(spec, weights, *inputs(given), wanted=wanted)
    agree([found.currents, *[found.target, found.adaptation][: len(wanted)]], list(expected))


@pytest.mark.parametrize("shifted", [False, True])
def test_a_constant_input_is_filtered_on_the_way(shifted: bool) -> None:
    given = layer(steps=5, batch=2, shape=(3, 4, 5))
    image, threshold = inputs(given)
    image = image[:1].clone().requires_grad_()
    initial = torch.rand(3, 4, 5, device=DEVICE, requires_grad=True) if shifted else None
    traces = eager.traces(encode_constant(image[0], 5, 3.0, initial), given.dynamics, bptt(), threshold)
    spec = kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES, None, 5, 3.0)
    assert torch.equal(cuda.forward(spec, image.detach(), threshold, initial), traces)
    weights = torch.randn(traces.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    expected = torch.autograd.grad((traces * weights).sum(), [image] if initial is None else [image, initial])
    wanted = () if initial is None else ("initial",)
    found = cuda.backward(spec, weights, image.detach(), threshold, initial, None, wanted)
    agree([found.currents, found.initial][: len(expected)], list(expected))


def test_bfloat16_rounds_what_float32_computes() -> None:
    given = layer(shape=(130,))
    half = replace(given, currents=given.currents.bfloat16())
    rounded = replace(given, currents=half.currents.float())
    found = cuda.forward(kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES), *inputs(half))
    exact = emitted(on_device(rounded), bptt(), KernelOutput.TRACES)
    if ON_GPU:
        assert torch.equal(found, exact.bfloat16())
    assert found.dtype == torch.bfloat16  # the interpreter rounds towards zero
    assert ((found - exact).abs() <= 2**-7 * exact).all()
    weights, expected = weighted(rounded, bptt())
    agree(gradients(half, bptt(), weights), expected, within=0.02)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_nothing_comes_of_nothing(shape: tuple[int, ...]) -> None:
    spec = kernel_spec(layer().dynamics, bptt(), KernelOutput.TRACES)
    nothing = torch.zeros(shape, device=DEVICE)
    assert cuda.forward(spec, nothing, None).shape == shape
    found = cuda.backward(spec, nothing, nothing, None, wanted=SUMS)
    assert found.currents.shape == shape
    assert found.adaptation is not None and found.adaptation.shape == shape[2:] and not found.adaptation.any()


def test_without_triton_the_kernels_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "kernels", lambda: None)
    assert not cuda.available()
    with pytest.raises(BackendError, match="Triton is not installed"):
        cuda.forward(kernel_spec(layer().dynamics, bptt(), KernelOutput.TRACES), layer().currents, None)


@dataclass
class Noted:
    """Stands for a kernel and notes what it would be launched with."""

    launches: list[dict[str, Any]]

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda **arguments: self.launches.append(arguments)


def compiled(name: str, arguments: dict[str, Any]) -> str:
    """Assembly of a kernel for an H100, which need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    spec = importlib.util.find_spec("hosnn.spiking.kernels.triton_kernels")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)  # anew, to be compiled rather than interpreted
    spec.loader.exec_module(module)
    kernel = getattr(module, name)
    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", float: "fp32", int: "i32"}
    signature, constants = {}, {}
    for at, key in enumerate(kernel.arg_names):
        value = arguments[key]
        if key.isupper() or value is None:
            signature[key], constants[(at,)] = "constexpr", value
        else:
            signature[key] = types[value.dtype if isinstance(value, Tensor) else type(value)]
    options = {key: arguments[key] for key in ("num_warps", "enable_fp_fusion")}
    source = ASTSource(kernel, signature, constexprs=constants)
    return str(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"])


@pytest.mark.parametrize(("steps", "dtype"), [(4, torch.float32), (20, torch.bfloat16)], ids=str)
def test_compiled_for_a_gpu_no_multiply_and_add_become_one_rounding(
    steps: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches: list[dict[str, Any]] = []
    monkeypatch.setattr(cuda, "kernels", lambda: SimpleNamespace(forward=Noted(launches), backward=Noted(launches)))
    given = layer(steps=steps)
    parts = given.currents.to(dtype), given.threshold
    cuda.forward(kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES), *parts)
    cuda.backward(kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES), parts[0], *parts, wanted=SUMS)
    for name, arguments in zip(("forward", "backward"), launches, strict=True):
        assembly = compiled(name, arguments)
        assert "fma.rn" not in assembly and "mul.rn.f32" in assembly
        assert dtype != torch.bfloat16 or "cvt.rn.bf16" in assembly


@only_on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("steps", [4, 8, 20])
@pytest.mark.parametrize("pooled", [None, 4.0])
def test_whole_layers_of_a_network(steps: int, pooled: float | None) -> None:
    given = layer(steps=steps, batch=64, shape=(64, 32, 32), per="channel")
    spec = kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES, pooled)
    traces = eager.traces(*on_device(given).arguments, bptt(), inputs(given)[1])
    if pooled is not None:
        traces = SumPool(2, pooled / 4)(traces.flatten(0, 1)).view(*traces.shape[:3], 16, 16)
    assert torch.equal(cuda.forward(spec, *inputs(given)), traces)
    weights = torch.randn_like(traces)
    first, second = (cuda.backward(spec, weights, *inputs(given), wanted=SUMS) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))  # type: ignore[arg-type]


@only_on_gpu
@pytest.mark.gpu
@pytest.mark.slow
def test_more_elements_than_an_int32_counts() -> None:
    spec: KernelSpec = kernel_spec(layer().dynamics, bptt(Sigmoid(0.3)), KernelOutput.TRACES)
    currents = torch.randn(5, 7, 2**26, device=DEVICE, dtype=torch.bfloat16) + 0.4
    assert currents.numel() > 2**31
    whole = cuda.forward(spec, currents, None)
    change = cuda.backward(spec, whole, currents, None).currents
    part = currents[:, -1:, -1000:].clone()
    assert torch.equal(cuda.forward(spec, part, None), whole[:, -1:, -1000:])
    expected = cuda.backward(spec, whole[:, -1:, -1000:].clone(), part, None).currents
    assert torch.equal(expected, change[:, -1:, -1000:])
