"""Layers by fused kernels: the operators `hosnn::neuron` and `hosnn::neuron_gradient`, and their place in autograd.

Registered with torch, so that torch.compile sees through a network; called directly where nothing is compiled.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import BackendError
from hosnn.spiking.gradient_rule import GradientRule
from hosnn.spiking.kernels import cpu, cuda, memory
from hosnn.spiking.kernels.kernel_spec import ALONE, GIVEN, Around, Emitted, Held, Task, task
from hosnn.spiking.state import Dynamics


def run(
    currents: Tensor,
    dynamics: Dynamics,
    rule: GradientRule,
    signature: Tensor | None,
    adaptation: Tensor | None,
    emit: Emitted,
    around: Around = ALONE,
) -> Tensor:
    """A layer over T steps from rest, with what stands around it: [T, B, *N] -> [T, B, *N], pooled if told to.

    Other arguments as in `eager.traces`.
    """
    gain, held, spent = around
    given, currents = currents, memory.laid_out(currents, channels_last=gain is not None)
    told = task(dynamics, rule, emit, gain, held)
    derivative = None
    if told.surrogate == GIVEN and torch.is_grad_enabled():
        derivative = _derivative(currents.detach(), dynamics, rule, signature, adaptation, held)
    local = rule.local_adaptation and emit is Emitted.TRACES  # the rule is defined on traces
    tensors = (currents, signature, adaptation, derivative)
    if torch.compiler.is_compiling() or _traced(currents, signature, adaptation):
        return neuron(*tensors, told.numbers, told.switches, local)  # type: ignore[no-any-return]
    if torch._C._functorch.is_functorch_wrapped_tensor(currents):
        raise BackendError(
            "torch.func (grad, vmap, ..) does not see through a spiking layer; use torch.autograd, a batch at a time"
        )
    spent |= currents.data_ptr() != given.data_ptr()
    return _Fused.apply(currents, _passed(signature), _passed(adaptation), derivative, told, local, spent)  # type: ignore[no-any-return, no-untyped-call]


def _passed(parameter: Tensor | None) -> Tensor | None:
    """The same values, one step further from a leaf, as `_reached` needs it."""
    if parameter is None or not parameter.requires_grad or not torch.is_grad_enabled():
        return parameter
    return parameter.view_as(parameter)


def _reached(ctx: Any) -> list[bool]:
    """Whether the gradients of signature and adaptation are used, which attacks on the images do not."""
    nodes = [node for node, _ in ctx.next_functions]
    return [
        wanted and torch._C._will_engine_execute_node(nodes[sum(ctx.given[:at])])
        for at, wanted in enumerate(ctx.needs_input_grad[1:3], 1)
    ]


def _traced(*tensors: Tensor | None) -> bool:
    """Whether something looks on that does not see native code: another type of tensor, a mode, a transformation."""
    plain = (Tensor, torch.nn.Parameter)
    return bool(torch._C._len_torch_dispatch_stack()) or any(
        tensor is not None and type(tensor) not in plain for tensor in tensors
    )


@torch.no_grad()
def _derivative(
    currents: Tensor,
    dynamics: Dynamics,
    rule: GradientRule,
    signature: Tensor | None,
    adaptation: Tensor | None,
    held: Held | None,
) -> Tensor:
    """h(x) [T, B, *N] of a surrogate that the layer's kernel does not know by itself."""
    looking = task(dynamics, rule, Emitted.DISTANCE, held=held)
    sharpness = None
    if not currents.is_cuda:
        sharpness = rule.sharpness(
            (held.steps if held else len(currents), *currents.shape[2:]),
            partial(cpu.room_to_remember, looking, currents),
        )
    if sharpness is not None:
        return cpu.sharpness(looking, currents, signature, adaptation, sharpness)
    # In float32 whatever the currents are: surrogates look closely at the threshold.
    distance = _forward(looking, currents.float(), signature, adaptation)
    steps = []
    for t in range(len(distance)):
        each = rule.at(t)
        if _paths(each) != _paths(rule):
            raise BackendError(f"{rule} cuts other paths at step {t} than it says; use the eager backend")
        steps.append(each.surrogate.prepared(distance[t]).derivative(distance[t]))
    return torch.stack(steps)


def _paths(rule: GradientRule) -> tuple[bool, ...]:
    return rule.leak, rule.reset, rule.threshold, rule.at_resting_threshold


def _forward(told: Task, currents: Tensor, signature: Tensor | None, adaptation: Tensor | None) -> Tensor:
    forward = cuda.forward if currents.is_cuda else cpu.forward
    return forward(told, currents, signature, adaptation)


def _backward(
    told: Task,
    gradient: Tensor,
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None,
    wanted: Sequence[str],
    spent: bool = False,
) -> list[Tensor]:
    tensors = gradient, currents, signature, adaptation, derivative
    if currents.is_cuda:
        found = cuda.backward(told, *tensors, wanted)
    else:
        found = cpu.backward(told, *tensors, wanted, spent=spent)
    return [value for value in found if value is not None]


def _wanted(signature: bool, adaptation: bool, local: bool, threshold: bool) -> list[str]:
    """Names of the gradients asked for, in the order of `memory.Gradients`."""
    names = ["adaptation"] if adaptation and threshold else []
    names += ["signature"] if signature and threshold else []
    return names + (["membrane_sum", "current_sum"] if adaptation and local else [])


def _spread(
    names: Sequence[str], values: Sequence[Tensor], signature: Tensor | None, adaptation: Tensor | None, steps: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dL/dI, dL/du*, dL/dk from what the kernel summed."""
    found = dict(zip(names, values[1:], strict=True))
    to_signature, to_adaptation = found.get("signature"), found.get("adaptation")
    if "membrane_sum" in found and signature is not None:
        batch = values[0].shape[1]
        error = found["membrane_sum"] / (steps * batch) - signature.mean(0)
        to_adaptation = -0.1 * (found["current_sum"] / steps) * error
    if to_adaptation is not None and adaptation is not None:
        to_adaptation = to_adaptation.sum_to_size(adaptation.shape).to(adaptation.dtype)
    if to_signature is not None and signature is not None:
        ones = [1] * (to_signature.dim() - signature.dim())
        aligned = (len(to_signature), *ones, *signature.shape[1:])
        reached = to_signature.sum_to_size(aligned).reshape(len(to_signature), *signature.shape[1:])
        to_signature = torch.zeros_like(signature)  # beyond T nothing was used
        to_signature[: len(reached)] = reached
    return values[0], to_signature, to_adaptation


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        currents, signature, adaptation, derivative, ctx.told, ctx.local, ctx.spent = inputs
        tensors = currents, signature, adaptation, derivative
        ctx.given = [tensor is not None for tensor in tensors]
        ctx.save_for_backward(*tensors)
        return _forward(ctx.told, currents, signature, adaptation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise BackendError("a fused layer has no second derivative (create_graph=True); use the eager backend")
        functorch = torch._C._functorch
        if functorch.is_legacy_batchedtensor(grads[0]) or functorch.is_functorch_wrapped_tensor(grads[0]):
            raise BackendError("a fused layer takes one gradient at a time, not a batch of them; use the eager backend")
        spent = ctx.spent and not torch._C._autograd._get_current_graph_task_keep_graph()
        kernel = partial(_backward, spent=spent)
        return *_differentiate(ctx, grads[0], kernel, *_reached(ctx)), None, None, None, None


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, numbers, switches, local = inputs
    ctx.save_for_backward(*tensors)
    ctx.told, ctx.local = Task.unpacked(numbers, switches), local


def _differentiate(
    ctx: Any, gradient: Tensor, kernel: Any, to_signature: bool, to_adaptation: bool
) -> tuple[Tensor | None, ...]:
    currents, signature, adaptation, derivative = ctx.saved_tensors
    names = _wanted(to_signature, to_adaptation, ctx.local, bool(ctx.told.threshold))
    values = kernel(ctx.told, gradient, currents, signature, adaptation, derivative, names)
    return _spread(names, values, signature, adaptation, ctx.told.held or len(currents))


@torch.library.custom_op("hosnn::neuron", mutates_args=())
def neuron(
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None,
    numbers: Sequence[float],
    switches: Sequence[int],
    local: bool,
) -> Tensor:
    return _forward(Task.unpacked(numbers, switches), currents, signature, adaptation)


@torch.library.custom_op("hosnn::neuron_gradient", mutates_args=())
def neuron_gradient(
    gradient: Tensor,
    currents: Tensor,
    signature: Tensor | None,
    adaptation: Tensor | None,
    derivative: Tensor | None,
    numbers: Sequence[float],
    switches: Sequence[int],
    wanted: Sequence[int],
) -> list[Tensor]:
    names = [memory.Gradients._fields[at] for at in wanted]
    told = Task.unpacked(numbers, switches)
    return _backward(told, gradient, currents, signature, adaptation, derivative, names)


@neuron.register_fake
def _(currents: Tensor, *others: Any) -> Tensor:
    *_, numbers, switches, _local = others
    return memory.shaped(Task.unpacked(numbers, switches), currents)


@neuron_gradient.register_fake
def _(gradient: Tensor, currents: Tensor, *others: Any) -> list[Tensor]:
    *_, numbers, switches, wanted = others
    told = Task.unpacked(numbers, switches)
    return [torch.empty_like(currents), *(memory.summed(told, currents, memory.Gradients._fields[at]) for at in wanted)]


def _compiled_kernel(told: Task, *arguments: Any) -> list[Tensor]:
    *tensors, names = arguments
    wanted = [memory.Gradients._fields.index(name) for name in names]
    return neuron_gradient(*tensors, told.numbers, told.switches, wanted)  # type: ignore[no-any-return]


def _compiled_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *_differentiate(ctx, gradient, _compiled_kernel, *ctx.needs_input_grad[1:3]), None, None, None, None


neuron.register_autograd(_compiled_backward, setup_context=_remember)
