"""Fused kernels as differentiable operations of torch.

`FusedLayer` where nothing is compiled; for torch.compile the operators `hosnn::neuron` and `hosnn::neuron_gradient`,
registered with torch so that it can trace through a network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.kernels import cpu, cuda, memory
from hosnn.spiking.kernels.kernel_spec import ConstantInput, KernelOutput, KernelSpec, kernel_spec
from hosnn.spiking.state import Dynamics, Threshold, threshold_from_tensors

NUM_TENSORS = 5
"""The tensors that `FusedLayer` and `neuron` take: currents; target and adaptation of the threshold
(`state.threshold_tensors`); initial state of a `ConstantInput`; the surrogate's derivative."""


class FusedLayer(torch.autograd.Function):
    """A layer by a fused kernel: `apply(*tensors, spec, local, input_reusable)`, tensors as `NUM_TENSORS` says.

    local           the adaptation rate learns by the local rule of `GradientRule`
    input_reusable  as in `FusionContext`
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        currents, target, adaptation, initial, _, ctx.spec, ctx.local, ctx.input_reusable = inputs
        ctx.save_for_backward(*inputs[:NUM_TENSORS])
        forward = cuda.forward if currents.is_cuda else cpu.forward
        return forward(ctx.spec, currents, threshold_from_tensors(target, adaptation), initial)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise BackendError("a fused layer has no second derivative (create_graph=True); use the eager backend")
        functorch = torch._C._functorch
        if functorch.is_legacy_batchedtensor(grads[0]) or functorch.is_functorch_wrapped_tensor(grads[0]):
            raise BackendError("a fused layer takes one gradient at a time, not a batch of them; use the eager backend")
        reusable = ctx.input_reusable and not torch._C._autograd._get_current_graph_task_keep_graph()
        compute = partial(_compute_gradients, input_reusable=reusable)
        tensors = ctx.saved_tensors
        used = _gradients_used(ctx, tensors)
        return *_differentiate(ctx, tensors, grads[0], compute, used), None, None, None, None


def as_non_leaves(*parameters: Tensor | None) -> tuple[Tensor | None, ...]:
    """Views of the parameters: only of tensors that are no leaves of the graph does `_gradients_used` work."""
    views = list(parameters)
    for number, parameter in enumerate(parameters):
        if parameter is not None and parameter.requires_grad:
            views[number] = parameter.view_as(parameter)
    return tuple(views)


def _gradients_used(ctx: Any, tensors: Sequence[Tensor | None]) -> list[bool]:
    """Whether this backward pass uses the gradients of target, adaptation and initial; attacks on images do not."""
    nodes = [node for node, _ in ctx.next_functions]  # of the tensors that are not None
    present = [tensor is not None for tensor in tensors]
    return [
        needed and torch._C._will_engine_execute_node(nodes[sum(present[:number])])
        for number, needed in enumerate(ctx.needs_input_grad[1:4], 1)
    ]


@torch.no_grad()
def surrogate_derivative(
    currents: Tensor, dynamics: Dynamics, rule: GradientRule, threshold: Threshold, constant: ConstantInput | None
) -> Tensor:
    """h(x) [T, B, *N] of a surrogate that the layer's kernel does not compute itself."""
    steps, tau, initial = constant or (0, 1.0, None)
    spec = kernel_spec(dynamics, rule, KernelOutput.DISTANCE, None, steps, tau)
    assg = None
    if not currents.is_cuda:
        shape = (steps or len(currents), *currents.shape[2:])
        assg = rule.sharpness(shape, partial(cpu.zero_moments, spec, currents))
    if assg is not None:
        return cpu.sharpness(spec, currents, threshold, initial, assg)
    # In float32 whatever the currents are: near the threshold, bfloat16 is coarser than narrow surrogates.
    forward = cuda.forward if currents.is_cuda else cpu.forward
    distance = forward(spec, currents.float(), threshold, initial)
    derivatives = []
    for t in range(len(distance)):
        rule_at_t = rule.at(t)
        if _paths(rule_at_t) != _paths(rule):
            raise BackendError(
                f"{rule} has other open paths at step {t} than as a whole, expected the same at every step; use the "
                "eager backend"
            )
        surrogate = rule_at_t.surrogate_at(dynamics.threshold)
        derivatives.append(surrogate.prepared(distance[t]).derivative(distance[t]))
    return torch.stack(derivatives)


def _paths(rule: GradientRule) -> tuple[bool, ...]:
    return rule.leak, rule.reset, rule.threshold, rule.at_resting_threshold


def _compute_gradients(
    spec: KernelSpec,
    gradient: Tensor,
    currents: Tensor,
    target: Tensor | None,
    adaptation: Tensor | None,
    initial: Tensor | None,
    derivative: Tensor | None,
    wanted: Sequence[str],
    input_reusable: bool = False,
) -> list[Tensor]:
    """The gradient of the currents, then those in `wanted`, which has the order of `memory.Gradients`."""
    arguments = spec, gradient, currents, threshold_from_tensors(target, adaptation), initial, derivative, wanted
    if currents.is_cuda:
        gradients = cuda.backward(*arguments)
    else:
        gradients = cpu.backward(*arguments, input_reusable=input_reusable)
    return [value for value in gradients if value is not None]


def _wanted(used: Sequence[bool], is_adaptive: bool, local: bool, through_threshold: bool) -> list[str]:
    """Names of the gradients to compute, in the order of `memory.Gradients`."""
    target, adaptation, initial = used
    names = ["adaptation"] if adaptation and through_threshold else []
    names += ["target"] if target and through_threshold else []
    names += ["initial"] if initial else []
    return names + (["membrane_sum", "current_sum"] if adaptation and is_adaptive and local else [])


def _differentiate(
    ctx: Any,
    tensors: Sequence[Any],
    gradient: Tensor,
    compute: Callable[..., list[Tensor]],
    used: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """dL/d currents, target, adaptation and initial, in the shapes of these.

    compute  as `_compute_gradients`
    used     for target, adaptation and initial, whether the gradient is needed
    """
    currents, target, adaptation, initial, derivative = tensors
    names = _wanted(used, adaptation is not None, ctx.local, bool(ctx.spec.threshold))
    values = compute(ctx.spec, gradient, currents, target, adaptation, initial, derivative, names)
    sums = dict(zip(names, values[1:], strict=True))
    to_target, to_adaptation, to_initial = sums.get("target"), sums.get("adaptation"), sums.get("initial")
    if "membrane_sum" in sums and target is not None:
        steps, batch = memory.steps_and_batch(ctx.spec, currents)
        error = sums["membrane_sum"] / (steps * batch) - target.mean(0)
        to_adaptation = -0.1 * (sums["current_sum"] / steps) * error
    if to_adaptation is not None and adaptation is not None:
        to_adaptation = to_adaptation.sum_to_size(adaptation.shape).to(adaptation.dtype)
    if to_initial is not None and initial is not None:
        to_initial = to_initial.sum_to_size(initial.shape).to(initial.dtype)
    if to_target is not None and target is not None:
        to_target = _in_shape_of_target(to_target, target)
    return values[0], to_target, to_adaptation, to_initial


def _in_shape_of_target(gradient: Tensor, target: Tensor) -> Tensor:
    """The gradient [T, *N] in the shape of `target`, which may have more than T steps and broadcast to the neurons."""
    ones = [1] * (gradient.dim() - target.dim())
    summed = gradient.sum_to_size((len(gradient), *ones, *target.shape[1:])).reshape(-1, *target.shape[1:])
    padded = torch.zeros_like(target)  # steps after T were not used
    padded[: len(summed)] = summed
    return padded


@torch.library.custom_op("hosnn::neuron", mutates_args=())
def neuron(
    currents: Tensor,
    target: Tensor | None,
    adaptation: Tensor | None,
    initial: Tensor | None,
    derivative: Tensor | None,
    reals: Sequence[float],
    integers: Sequence[int],
    local: bool,
) -> Tensor:
    forward = cuda.forward if currents.is_cuda else cpu.forward
    return forward(KernelSpec.unpacked(reals, integers), currents, threshold_from_tensors(target, adaptation), initial)


@torch.library.custom_op("hosnn::neuron_gradient", mutates_args=())
def neuron_gradient(
    gradient: Tensor,
    currents: Tensor,
    target: Tensor | None,
    adaptation: Tensor | None,
    initial: Tensor | None,
    derivative: Tensor | None,
    reals: Sequence[float],
    integers: Sequence[int],
    wanted: Sequence[int],
) -> list[Tensor]:
    names = [memory.Gradients._fields[number] for number in wanted]
    spec = KernelSpec.unpacked(reals, integers)
    return _compute_gradients(spec, gradient, currents, target, adaptation, initial, derivative, names)


@neuron.register_fake
def _(currents: Tensor, *others: Any) -> Tensor:
    *_, reals, integers, _local = others
    return memory.empty_output(KernelSpec.unpacked(reals, integers), currents)


@neuron_gradient.register_fake
def _(gradient: Tensor, currents: Tensor, *others: Any) -> list[Tensor]:
    *_, reals, integers, wanted = others
    spec = KernelSpec.unpacked(reals, integers)
    names = [memory.Gradients._fields[number] for number in wanted]
    return [torch.empty_like(currents), *(memory.empty_sum(spec, currents, name) for name in names)]


def _compiled_gradients(spec: KernelSpec, *arguments: Any) -> list[Tensor]:
    *tensors, names = arguments
    wanted = [memory.Gradients._fields.index(name) for name in names]
    return neuron_gradient(*tensors, spec.reals, spec.integers, wanted)  # type: ignore[no-any-return]


def _compiled_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, reals, integers, local = inputs
    ctx.save_for_backward(*tensors)
    ctx.spec, ctx.local = KernelSpec.unpacked(reals, integers), local


def _compiled_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    used = ctx.needs_input_grad[1:4]
    return *_differentiate(ctx, ctx.saved_tensors, gradient, _compiled_gradients, used), None, None, None, None


neuron.register_autograd(_compiled_backward, setup_context=_compiled_setup)
