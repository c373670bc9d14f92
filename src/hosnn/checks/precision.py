"""Whether a model computes in fewer bits than float32, by its weights and the operations of one forward pass."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hosnn.errors import ShapeError
from hosnn.robustness.model import Model
from hosnn.runtime import own_randomness


def check_precision(model: Model, x: Tensor, name: str) -> None:
    """Raise ShapeError if the model, called `name`, has weights of fewer bits than float32, or computes in them.

    x  a few images [n, ...]
    Operations that torch does not see, as those of numpy, are not found; nor those of a model that cannot run while it
    is watched.
    """
    low = _low_weight(model) or _low_operation(model, x)
    if low:
        raise ShapeError(
            f"{name} computes below float32: {low}; its rounding hides small changes from attacks, and robustness is "
            "measured in float32: evaluate model.float(), without casts and autocast"
        )


def _low_weight(model: Model) -> str:
    tensors = () if not isinstance(model, nn.Module) else (*model.named_parameters(), *model.named_buffers())
    return next((f"{name} is {tensor.dtype}" for name, tensor in tensors if _is_low(tensor)), "")


def _low_operation(model: Model, x: Tensor) -> str:
    watcher = _Watcher()
    try:
        with own_randomness(0), torch.no_grad(), watcher:
            model(x)
    except Exception:  # not a model of such images, which another check says, or one that no dispatch mode can run in
        return ""
    return watcher.first


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the first operation that gives floats of fewer than 32 bits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if not self.first:
            low = next((value.dtype for value in tree_leaves(outputs) if _is_low(value)), None)
            self.first = "" if low is None else f"{func.overloadpacket.__name__} gives {low}"
        return outputs


def _is_low(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize < 4
