"""Signs of spikes in one forward pass: the values that modules emit, and steps in the operations of any function.

A spike is a step function of a membrane, so its values are few: 0 and 1, 0 and a factor (graded), or whole multiples of
a factor (several spikes per time step).  Quantised activations have such values too.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hosnn.checks.measurements import scores_in_blocks

MOST_LEVELS = 64
"""Largest multiple of the smallest value that still counts as a number of spikes."""

OWN_FUNCTIONS = ("torch", "hosnn")
"""Packages whose autograd functions are known not to spike outside hosnn's layers."""

KNOWN_OPERATIONS = ("aten", "prim", "prims", "profiler")
"""Namespaces of operations of torch that are looked at one by one."""

COMPARISONS = frozenset({"gt", "ge", "lt", "le"})
ROUNDING = frozenset(
    "round floor ceil trunc fix heaviside sign sgn bernoulli floor_divide fake_quantize_per_tensor_affine".split()
)

Levels = Literal["two", "several"]


@dataclass(frozen=True)
class Emission:
    """A module whose outputs have few values although its inputs do not.

    levels  two: 0 and one magnitude; several: also multiples of it
    """

    module: nn.Module
    levels: Levels


@dataclass
class Operations:
    """What the operations of a forward pass did to values that depend on the images.

    steps      how they were turned into steps, such as "a comparison" or "round"; empty if they were not
    functions  names of foreign autograd functions that the gradient passes
    followed   whether the logits were computed by operations that can be seen
    unknown    names of operations that are not torch's own, such as those of quantised layers
    """

    steps: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    followed: bool = False
    unknown: list[str] = field(default_factory=list)


def emissions(model: nn.Module, x: Tensor) -> list[Emission]:
    """Modules inside the model, none of torch's own, that turn real numbers into few levels."""
    seen: list[Emission] = []

    def record(module: nn.Module, arguments: tuple[object, ...], named: dict[str, object], outputs: object) -> None:
        inputs = [value for value in tree_leaves((arguments, named)) if _is_float(value)]
        levels = next((levels for levels in map(levels_of, tree_leaves(outputs)) if levels), None)
        if levels and inputs and not any(map(levels_of, inputs)):
            seen.append(Emission(module, levels))

    handles = [
        module.register_forward_hook(record, with_kwargs=True)
        for module in model.modules()
        if module is not model and type(module).__module__.partition(".")[0] != "torch"
    ]
    try:
        scores_in_blocks(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def levels_of(value: object) -> Levels | None:
    """Whether a float tensor holds zeros and few multiples of one magnitude, each many times; None: it does not."""
    if not isinstance(value, Tensor) or not _is_float(value):
        return None
    magnitudes = value.detach().abs().float()
    nonzero = magnitudes[magnitudes > 0]
    if not len(nonzero) or len(nonzero) == magnitudes.numel():
        return None
    multiples = nonzero / nonzero.min()
    highest = float(multiples.max())
    if not highest <= MOST_LEVELS or float((multiples - multiples.round()).abs().max()) > 1e-3:
        return None
    if len(nonzero) < 2 * len(torch.unique(multiples.round())):  # real numbers hardly ever coincide
        return None
    return "two" if round(highest) == 1 else "several"


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def watch_operations(model: nn.Module, x: Tensor) -> Operations:
    """Follow the images through one forward pass with a gradient, whatever functions it calls.

    Nothing is followed where the model does not run while it is watched.
    """
    x = x.detach().clone().requires_grad_()
    watcher = _Watcher(x)
    try:
        with torch.enable_grad(), watcher:
            logits = model(x)
    except Exception:  # a model that no dispatch mode can run in, such as one made of traced graphs
        return Operations()
    followed = _storage(logits) in watcher.from_images
    return Operations(watcher.steps, _foreign_functions(logits), followed, watcher.unknown)


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows values by their storage: those computed from the images, and truth values that compare such values."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.from_images = {_storage(x)}
        self.compared: set[int] = set()
        self.steps: list[str] = []
        self.unknown: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        before = {_storage(value) for value in inputs}
        outputs = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__.rstrip("_")
        rounds = operation in ROUNDING or (operation == "div" and (kwargs or {}).get("rounding_mode") is not None)
        allocates = operation.endswith("_like") or operation.startswith("new_")
        numbers = any(value.is_floating_point() and _storage(value) in self.from_images for value in inputs)
        from_images = not allocates and any(_storage(value) in self.from_images for value in inputs)
        compared = any(_storage(value) in self.compared for value in inputs)
        for output in tree_leaves(outputs):
            if not isinstance(output, Tensor):
                continue
            if numbers and rounds and output.is_floating_point():
                self.steps.append(operation)
            if numbers and func.namespace not in KNOWN_OPERATIONS:
                self.unknown.append(f"{func.namespace}::{operation}")
            if compared and not numbers and output.is_floating_point() and output.numel() > 1:
                self.steps.append("a comparison")
            is_truth = not output.is_floating_point()
            self._set(self.from_images, output, from_images, before)
            self._set(self.compared, output, is_truth and (compared or (numbers and operation in COMPARISONS)), before)
        return outputs

    @staticmethod
    def _set(followed: set[int], output: Tensor, belongs: bool, before: set[int]) -> None:
        storage = _storage(output)
        if belongs:
            followed.add(storage)
        elif storage not in before:  # memory that was freed and is used again
            followed.discard(storage)


def _storage(tensor: Tensor) -> int:
    """The address of a tensor's values; 0 if it has none, as a sparse one."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # NotImplementedError is one
        return 0


def _foreign_functions(logits: Tensor) -> list[str]:
    """Names of the autograd functions of other packages in the graph of the logits."""
    waiting, seen, names = [logits.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and function.__module__.partition(".")[0] not in OWN_FUNCTIONS:
            names.append(function.__qualname__)
    return names
