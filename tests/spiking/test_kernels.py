"""The fused kernels against the eager step: the same bits forward, float64's gradients backward."""

import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from hosnn.errors import BackendError, ShapeError
from hosnn.nn.layers import SumPool
from hosnn.spiking.gradient_rule import GradientRule, WholeLayerRule, bptt, tssl_bp
from hosnn.spiking.kernels import backend, cpu, eager, fused
from hosnn.spiking.kernels.kernel_spec import FusionContext, KernelOutput, kernel_spec
from hosnn.spiking.state import AdaptiveThreshold, Dynamics, Reset, Threshold, threshold_from_tensors
from hosnn.spiking.surrogate import SURROGATES, Exponential, PotentialDependent, Sigmoid, Surrogate

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="the native kernel was not built")

SHAPES = ((1,), (3,), (64,), (65,), (1030,), (3, 5, 7), (64, 2, 2), (20, 9, 8), (15, 6, 5))
"""Less than a register, whole blocks, more than a tile, odd tails, images."""

RULES: tuple[GradientRule, ...] = (
    *(bptt(surrogate()) for surrogate in SURROGATES),
    bptt(Sigmoid(0.3, clamp=1.0)),
    bptt(Exponential(0.4, peak=0.3)),
    bptt(PotentialDependent()),
    replace(bptt(), leak=False),
    replace(bptt(), reset=False),
    replace(bptt(), threshold=False),
    replace(bptt(), leak=False, reset=False),
    replace(bptt(), at_resting_threshold=True),
    tssl_bp(),
)


@dataclass(frozen=True)
class Layer:
    """Inputs of a layer; `signature` and `adaptation` as `threshold_tensors` gives them."""

    currents: Tensor
    signature: Tensor | None
    adaptation: Tensor | None
    dynamics: Dynamics

    def to(self, dtype: torch.dtype) -> "Layer":
        signature, adaptation = (None if part is None else part.to(dtype) for part in (self.signature, self.adaptation))
        return Layer(self.currents.to(dtype), signature, adaptation, self.dynamics)

    @property
    def arguments(self) -> tuple[Tensor, Dynamics]:
        return self.currents, self.dynamics

    @property
    def threshold(self) -> Threshold:
        """Static where there is no k."""
        return threshold_from_tensors(self.signature, self.adaptation)


def layer(
    seed: int = 0,
    steps: int = 4,
    batch: int = 3,
    shape: tuple[int, ...] = (65,),
    adaptive: bool = True,
    reset: Reset = Reset.HARD,
    per: str = "neuron",
    tau_synapse: float = 2.5,
    static: bool = False,
) -> Layer:
    """A layer whose threshold adapts, or is static, or neither."""
    generator = torch.Generator().manual_seed(seed)
    currents = torch.randn(steps, batch, *shape, generator=generator) * 0.8 + 0.4
    signature = torch.rand(steps, *shape, generator=generator)
    sizes = {"neuron": shape, "channel": (shape[0], *[1] * (len(shape) - 1)), "layer": ()}
    adaptation = torch.rand(sizes[per], generator=generator) * 0.4
    dynamics = Dynamics(4.0, tau_synapse, 0.9, reset)
    if static:
        return Layer(currents, signature + 0.4, None, dynamics)
    return Layer(currents, signature if adaptive else None, adaptation if adaptive else None, dynamics)


def run(given: Layer, rule: GradientRule, how: str, spikes: bool = False) -> Tensor:
    with backend.choose(how):
        return backend.run_layer(
            *given.arguments, rule, given.threshold, KernelOutput.SPIKES if spikes else KernelOutput.TRACES
        )


def gradients(given: Layer, rule: GradientRule, how: str, spikes: bool = False) -> list[Tensor | None]:
    """dL/dI, dL/dk and dL/du* (or dL/dθ) of a fixed random sum of the outputs, of what there is."""
    values = {"currents": given.currents, "adaptation": given.adaptation, "signature": given.signature}
    leaves: dict[str, Any] = {n: part.clone().requires_grad_() for n, part in values.items() if part is not None}
    parts = list(leaves.values())
    output = run(replace(given, **leaves), rule, how, spikes)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return list(torch.autograd.grad((output * weights).sum(), parts, allow_unused=True))


def far_from_threshold(given: Layer) -> bool:
    """Where float32 and float64 cannot differ in a spike."""
    wide = given.to(torch.float64)
    step = eager.trajectory(*wide.arguments, bptt(), wide.threshold)
    return bool(((step.membrane - step.threshold).abs() >= 1e-4).all())


layers = st.builds(
    layer,
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 9),
    batch=st.integers(1, 4),
    shape=st.sampled_from(SHAPES),
    adaptive=st.booleans(),
    static=st.booleans(),
    reset=st.sampled_from(list(Reset)),
    per=st.sampled_from(["neuron", "channel", "layer"]),
    tau_synapse=st.sampled_from([1.0, 1.07, 1.49, 2.12, 2.61, 3.0, 3.1]),  # some whose reciprocal rounds twice
)
rules = st.sampled_from(RULES)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@quick
@given(given=layers, spikes=st.booleans())
def test_forward_has_the_bits_of_the_specification(given: Layer, spikes: bool) -> None:
    assert torch.equal(run(given, bptt(), "cpu", spikes), run(given, bptt(), "eager", spikes))


@quick
@given(given=layers, rule=rules, spikes=st.booleans())
def test_gradients_are_those_of_the_specification_in_float64(given: Layer, rule: GradientRule, spikes: bool) -> None:
    assume(far_from_threshold(given))
    assume(not (spikes and rule.local_adaptation))
    wide = gradients(given.to(torch.float64), rule, "eager", spikes)
    assert wide[0] is not None
    summed = float(wide[0].abs().sum())  # k and u* get sums, which may cancel: their rounding is that of the terms
    for number, (got, expected) in enumerate(zip(gradients(given, rule, "cpu", spikes), wide, strict=True)):
        assert (got is None) == (expected is None)
        if got is not None and expected is not None:
            assert got.shape == expected.shape
            scale = max(float(expected.abs().max()), summed if number else 0.0, 1e-30)
            assert (got - expected).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("reset", list(Reset))
@pytest.mark.parametrize("static", [False, True], ids=["adaptive", "static"])
def test_every_rule_and_reset_reaches_currents_and_threshold(rule: GradientRule, reset: Reset, static: bool) -> None:
    drawn = (layer(seed, 5, 2, (7, 3, 3), reset=reset, static=static) for seed in range(50))
    given = next(filter(far_from_threshold, drawn))
    wide = gradients(given.to(torch.float64), rule, "eager")
    for got, expected in zip(gradients(given, rule, "cpu"), wide, strict=True):
        assert (got is None) == (expected is None)
        if got is not None and expected is not None:
            assert bool((got != 0).any()) == bool((expected != 0).any())
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "laid",
    [
        lambda x: x.contiguous(memory_format=torch.contiguous_format),
        lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        lambda x: x.permute(4, 0, 2, 1, 3).contiguous().permute(1, 3, 2, 4, 0),
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], 3)[:, :, :, : x.shape[3]],
    ],
    ids=["contiguous", "channels last", "shuffled", "every other", "batch first", "part of a row"],
)
@pytest.mark.parametrize("homeostasis", ["as given", "channels last"])
def test_any_layout_in_memory_gives_the_same(laid: Any, homeostasis: str) -> None:
    given = layer(shape=(5, 4, 6))
    moved = replace(given, currents=laid(given.currents))
    assert torch.equal(moved.currents, given.currents)
    if homeostasis != "as given" and given.signature is not None and given.adaptation is not None:
        signature = given.signature.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        adaptation = given.adaptation.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        moved = replace(moved, signature=signature, adaptation=adaptation)
    assert torch.equal(run(moved, bptt(), "cpu"), run(given, bptt(), "eager"))
    for got, expected in zip(gradients(moved, bptt(), "cpu"), gradients(given, bptt(), "eager"), strict=True):
        assert got is not None and expected is not None
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("repeated", [1, 2])
def test_an_expanded_batch_and_an_expanded_gradient_are_read_right(repeated: int) -> None:
    given = layer(batch=1)
    currents = given.currents.expand(-1, repeated, -1).requires_grad_()
    output = run(replace(given, currents=currents), bptt(), "cpu")
    assert torch.equal(output, run(given, bptt(), "eager").expand(-1, repeated, -1))
    (first,) = torch.autograd.grad(output.sum(), currents)
    assert torch.equal(first[:, :1].expand_as(first), first) and bool(first.any())


@pytest.mark.parametrize("shape", [(2, 4, 4), (64, 2, 6), (65, 4, 2), (15, 8, 8), (3, 5, 4), (3, 4, 7), (130, 3, 3)])
@pytest.mark.parametrize("kind", [{}, {"adaptive": False}, {"static": True}], ids=["adaptive", "fixed", "static"])
def test_pooling_on_the_way_is_pooling_afterwards(shape: tuple[int, int, int], kind: dict[str, Any]) -> None:
    given = layer(shape=shape, **kind)
    found = []
    for inside in (True, False):
        parts = [
            part.clone().requires_grad_()
            for part in (given.currents, given.signature, given.adaptation)
            if part is not None
        ]
        signature, adaptation = (*parts[1:], None, None)[:2]
        gain = 1.1 * 4 if inside else None
        traces = backend.run_layer(
            parts[0], given.dynamics, bptt(), threshold_from_tensors(signature, adaptation), context=FusionContext(gain)
        )
        pooled = traces if inside else SumPool(2, 1.1)(traces.flatten(0, 1)).unflatten(0, traces.shape[:2])
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2))
        found.append((pooled.detach(), torch.autograd.grad((pooled * weights).sum(), parts)))
    assert torch.equal(found[0][0], found[1][0])
    for got, expected in zip(found[0][1], found[1][1], strict=True):
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_bfloat16_rounds_what_float32_computes() -> None:
    given = layer(shape=(130,))
    half = replace(given, currents=given.currents.bfloat16())
    rounded = replace(given, currents=half.currents.float())
    assert torch.equal(run(half, bptt(), "cpu"), run(rounded, bptt(), "eager").bfloat16())
    for got, expected in zip(gradients(half, bptt(), "cpu"), gradients(rounded, bptt(), "eager"), strict=True):
        assert got is not None and expected is not None
        assert (got.float() - expected).abs().max() <= 0.02 * expected.abs().max()


def test_the_number_of_threads_changes_no_bit() -> None:
    given = layer(steps=8, batch=8, shape=(4200,))
    assert given.currents.numel() >= cpu.MIN_PARALLEL
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append([run(given, bptt(), "cpu"), *gradients(given, bptt(), "cpu")])
        finally:
            torch.set_num_threads(1)
    for first, second in zip(*found, strict=True):
        assert first is not None and second is not None and torch.equal(first, second)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_nothing_comes_of_nothing(shape: tuple[int, ...]) -> None:
    currents = torch.zeros(shape, requires_grad=True)
    output = backend.run_layer(currents, Dynamics(), bptt())
    assert output.shape == shape
    output.sum().backward()  # type: ignore[no-untyped-call]
    assert currents.grad is not None and currents.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_run_eagerly_and_are_refused_by_name(dtype: torch.dtype) -> None:
    given = layer().to(dtype)
    assert run(given, bptt(), "auto").dtype == dtype
    with pytest.raises(BackendError, match=rf"'cpu' cannot run.*{dtype}.*'auto' or 'eager'"):
        run(given, bptt(), "cpu")


def test_a_rule_for_whole_layers_is_refused_by_name_and_runs_eagerly() -> None:
    class Zero(WholeLayerRule):
        def backward(self, gradient: Tensor, *_: Any) -> Tensor:
            return torch.zeros_like(gradient)

    given = layer()
    with pytest.raises(BackendError, match="Zero needs membranes and thresholds of all"), backend.choose("cpu"):
        backend.run_layer(*given.arguments, Zero(), given.threshold)
    currents = given.currents.requires_grad_()
    backend.run_layer(currents, given.dynamics, Zero(), given.threshold).sum().backward()  # type: ignore[no-untyped-call]
    assert currents.grad is not None and not currents.grad.any()
    with torch.no_grad(), backend.choose("cpu"):
        assert torch.equal(backend.run_layer(*given.arguments, Zero(), given.threshold), run(given, bptt(), "eager"))


def test_an_unknown_backend_names_the_known() -> None:
    with (
        pytest.raises(BackendError, match="got 'gpu'; expected one of auto, eager, cpu, tri"),
        backend.choose("gpu"),
    ):
        pass


def test_without_native_code_layers_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer()
    expected = run(given, bptt(), "cpu")
    monkeypatch.setattr(cpu, "library", lambda: None)
    assert backend.active(torch.device("cpu")) == "eager"
    assert torch.equal(run(given, bptt(), "auto"), expected)
    with pytest.raises(BackendError, match="was not built"):
        run(given, bptt(), "cpu")


def test_a_surrogate_with_another_path_at_a_step_is_refused() -> None:
    @dataclass(frozen=True)
    class Changing(GradientRule):
        def at(self, step: int) -> GradientRule:
            return GradientRule(self.surrogate, leak=step > 0)

    with pytest.raises(BackendError, match="has other open paths at step 0"):
        gradients(layer(), Changing(), "cpu")


@pytest.mark.parametrize("surrogate", [Sigmoid(), PotentialDependent()], ids=str)
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_operators_are_registered_rightly(surrogate: Surrogate, adaptive: bool) -> None:
    given = layer(shape=(6,), adaptive=adaptive)
    spec = kernel_spec(given.dynamics, bptt(surrogate), KernelOutput.TRACES)
    given_derivative = None if isinstance(surrogate, Sigmoid) else torch.rand_like(given.currents)
    parts = given.currents, given.signature, given.adaptation
    leaves = [None if part is None else part.requires_grad_() for part in parts]
    torch.library.opcheck(fused.neuron, (*leaves, None, given_derivative, spec.reals, spec.integers, False))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_layer_is_the_layer(compiler: str) -> None:
    given = layer(shape=(6, 4, 4))

    def whole(currents: Tensor) -> Tensor:
        return backend.run_layer(currents * 1.0, given.dynamics, bptt(), given.threshold) * 2

    compiled = torch.compile(whole, fullgraph=True, backend=compiler)
    found = []
    for function in (whole, compiled):
        currents = given.currents.clone().requires_grad_()
        output = function(currents)
        output.square().sum().backward()  # type: ignore[no-untyped-call]
        assert currents.grad is not None
        found.append((output.detach(), currents.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_a_second_derivative_is_refused_not_dropped() -> None:
    currents = layer(shape=(6,)).currents.requires_grad_()
    output = backend.run_layer(currents * 2, Dynamics(), bptt())
    with pytest.raises(BackendError, match="no second derivative"):
        torch.autograd.grad(output.sum(), currents, create_graph=True)


def test_only_gradients_that_are_used_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        asked.append(tuple(arguments[-1]))
        return backward(*arguments, **options)

    backward = cpu.backward
    monkeypatch.setattr(cpu, "backward", noted)
    currents = torch.randn(3, 2, 6).requires_grad_()
    signature, adaptation = torch.rand(3, 6).requires_grad_(), torch.rand(6).requires_grad_()

    def output() -> Tensor:
        return backend.run_layer(currents, Dynamics(), bptt(), AdaptiveThreshold(signature, adaptation)).sum()

    torch.autograd.grad(output(), currents)
    torch.autograd.grad(output(), adaptation)
    torch.autograd.grad(output(), (currents, signature))
    output().backward()  # type: ignore[no-untyped-call]
    assert asked == [(), ("adaptation",), ("target",), ("adaptation", "target")]
    assert signature.grad is not None
    assert adaptation.grad is not None


def test_several_gradients_at_once_are_refused() -> None:
    currents = layer(shape=(6,)).currents.requires_grad_()
    output = backend.run_layer(currents, Dynamics(), bptt())
    with pytest.raises(BackendError, match="one gradient at a time"):
        torch.autograd.grad(output, currents, torch.stack([output.detach()] * 2), is_grads_batched=True)


@pytest.mark.parametrize("transformed", [torch.func.grad, torch.func.vmap])
def test_transforms_of_functions_are_refused(transformed: Any) -> None:
    with pytest.raises(BackendError, match=r"torch\.func"):
        transformed(lambda currents: backend.run_layer(currents, Dynamics(), bptt()).sum())(torch.rand(4, 3, 2, 5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    large = torch.zeros(2, 2, 2 * cpu.MIN_PARALLEL)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        backend.run_layer(large, Dynamics(), bptt())  # the parent's threads are there now
        child = multiprocessing.get_context("fork").Process(target=backend.run_layer, args=(large, Dynamics(), bptt()))
        child.start()
        child.join(60)
        hangs = child.is_alive()
        child.kill()
    finally:
        torch.set_num_threads(before)
    assert not hangs
    assert child.exitcode == 0


def test_tensors_without_memory_go_through_the_operator() -> None:
    with FakeTensorMode():
        assert backend.run_layer(torch.randn(5, 2, 3), Dynamics(), bptt()).shape == (5, 2, 3)
    with torch.no_grad():
        traced = make_fx(lambda x: backend.run_layer(x, Dynamics(), bptt()))(torch.zeros(5, 2, 3))
    large = torch.full((5, 2, 3), 5.0)
    assert torch.equal(traced(large), backend.run_layer(large, Dynamics(), bptt()))


def test_k_or_a_signature_of_higher_precision_runs_eagerly() -> None:
    given = layer(shape=(6,))
    assert given.signature is not None and given.adaptation is not None
    wide = replace(given, signature=given.signature.double(), adaptation=given.adaptation.double())
    assert torch.equal(run(wide, bptt(), "auto"), run(wide, bptt(), "eager"))
    with pytest.raises(BackendError, match=r"(signature or thresholds|k) in torch\.float64"):
        run(wide, bptt(), "cpu")


def test_the_local_rule_teaches_k_on_traces_only() -> None:
    given = layer(shape=(6,))
    for how in ("cpu", "eager"):
        assert gradients(given, tssl_bp(), how, spikes=True)[1] is None


@pytest.mark.parametrize("rule", [tssl_bp(), bptt()], ids=["local", "bptt"])
def test_infinite_currents_leave_gradients_as_the_specification_has_them(rule: GradientRule) -> None:
    currents = torch.tensor([[[float("inf"), -float("inf"), 0.5]]])
    given = Layer(currents, None, None, Dynamics())
    (got,), (expected,) = gradients(given, rule, "cpu"), gradients(given, rule, "eager")
    assert got is not None and expected is not None
    assert torch.allclose(got, expected, equal_nan=True)


@pytest.mark.parametrize("rule", [*(bptt(surrogate()) for surrogate in SURROGATES), tssl_bp()])
@pytest.mark.parametrize("what", ["NaN current", "infinite current", "NaN gradient"])
def test_numbers_that_are_none_are_not_hidden(rule: GradientRule, what: str) -> None:
    """A network that diverged must not look as if its gradient were zero."""
    found = []
    for how in ("eager", "cpu"):
        torch.manual_seed(0)
        currents, signature, adaptation = torch.randn(5, 3, 7), torch.rand(5, 7), 0.4 * torch.rand(7)
        if "current" in what:
            currents[2, 1, 3] = float("nan" if "NaN" in what else "inf")
        inputs = [part.requires_grad_() for part in (currents, signature, adaptation)]
        with backend.choose(how):
            output = backend.run_layer(currents, Dynamics(), rule, AdaptiveThreshold(signature, adaptation))
        gradient = torch.ones_like(output)
        if "gradient" in what:
            gradient[2, 1, 3] = float("nan")
        parts = torch.autograd.grad(output, inputs, gradient, allow_unused=True)
        found.append([0 if part is None else int(part.isnan().sum()) for part in parts])
    assert found[0] == found[1]
    assert sum(found[0]) > 0 or what == "infinite current"


def test_a_fused_layer_can_be_computed_again_instead_of_kept() -> None:
    given = layer(shape=(6,))
    signature, adaptation = torch.rand(len(given.currents), 6).requires_grad_(), torch.rand(6).requires_grad_()
    currents = given.currents.clone().requires_grad_()

    def traces(currents: Tensor, signature: Tensor, adaptation: Tensor) -> Tensor:
        return backend.run_layer(currents, Dynamics(), bptt(), AdaptiveThreshold(signature, adaptation))

    inputs = (currents, signature, adaptation)
    again = checkpoint(traces, *inputs, use_reentrant=False)
    for got, expected in zip(
        torch.autograd.grad(again.sum(), inputs), torch.autograd.grad(traces(*inputs).sum(), inputs), strict=True
    ):
        assert torch.equal(got, expected)


def test_surrogates_of_ones_own_see_the_distance_in_float32() -> None:
    given = layer(shape=(64,))
    half = given.currents.bfloat16()
    found = []
    for currents in (half, half.float()):
        currents = currents.requires_grad_()
        output = backend.run_layer(currents, Dynamics(), bptt(PotentialDependent()))
        found.append(torch.autograd.grad(output, currents, torch.ones_like(output))[0].float())
    assert (found[0] - found[1]).abs().max() < 0.004 * found[1].abs().max()


def test_a_signature_longer_than_the_run_is_cut_and_a_shorter_one_refused() -> None:
    given = layer(steps=6, shape=(6,))
    assert given.signature is not None
    short = replace(given, currents=given.currents[:4])
    for got, expected in zip(gradients(short, bptt(), "cpu"), gradients(short, bptt(), "eager"), strict=True):
        assert got is not None and expected is not None and torch.allclose(got, expected, atol=1e-6)
    with pytest.raises(ShapeError, match=r"6 time steps and a signature \(or thresholds\) of 1"):
        run(replace(given, signature=given.signature[:1]), bptt(), "cpu")


def test_arrays_smaller_than_the_kernel_is_told_are_refused() -> None:
    given = layer(shape=(6,))
    spec = kernel_spec(given.dynamics, bptt(), KernelOutput.TRACES)
    with pytest.raises(ShapeError, match="got a gradient"):
        cpu.backward(spec._replace(constant_steps=3), given.currents, given.currents[:1], None)


def test_choices_end_in_any_order() -> None:
    first, second = backend.choose("eager"), backend.choose("cpu")
    before = backend.active(torch.device("cpu"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert backend.active(torch.device("cpu")) == "cpu"
    second.__exit__(None, None, None)
    assert backend.active(torch.device("cpu")) == before


@pytest.mark.parametrize("value", ["", "cuda"])
def test_the_environment_chooses_or_is_named_in_the_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSNN_BACKEND", value)
    if not value:
        assert backend.active(torch.device("cpu")) == "cpu"
        return
    with pytest.raises(BackendError, match="HOSNN_BACKEND got 'cuda'"):
        backend.active(torch.device("cpu"))


def test_an_interruption_waits_for_threads_that_still_write(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def function(_: Any, __: Any, begin: int, ___: int) -> int:
        if begin == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        done.append(begin)
        return 0

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        cpu._in_parallel(function, cpu._LayerSpec(), cpu._Arrays(), 2)
    assert done == [1]
