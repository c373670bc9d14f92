"""The network inside what was put around it: compiled, parallel, averaged or exported models."""

import copy
import warnings
from typing import Any, TypeVar

from lightning_fabric.wrappers import _FabricModule
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hosnn.errors import ConfigError, UnwrappedWarning
from hosnn.nn.fusion import has_hooks

M = TypeVar("M")

ORIGINAL = "_torchdynamo_orig_callable"
"""Attribute of a function that torch.compile returned: the function that it was made from."""


def unwrapped(model: M, caller: str) -> M:
    """The network that a model is made around, with the same parameters; a model without wrappers is returned itself.

    Taken off, wherever in the model: torch.compile of a network, of a layer, of a `forward` or of a function;
    DataParallel and DistributedDataParallel; Fabric's module; an averaged model; an exported program.  A model with
    compiled parts inside is copied, with shared parameters and buffers; it stays as it is.
    caller  for messages, e.g. "evaluate"
    Gives an UnwrappedWarning that names what was taken off.
    Raises ConfigError for a wrapper with hooks of its own, which would be lost, and if the model cannot be copied.
    """
    taken_off: list[str] = []
    inner: Any = model
    while (content := _content(inner)) is not None:
        _check_hooks(inner, caller)
        taken_off.append(_kind(inner))
        inner = content
    if isinstance(inner, nn.Module):
        inner = _without_compiled_parts(inner, taken_off, caller)
    if taken_off:
        warnings.warn(
            f"{caller} got a model inside {', '.join(dict.fromkeys(taken_off))}; the network inside is used, which "
            "computes the same but for rounding",
            UnwrappedWarning,
            stacklevel=3,
        )
    return inner  # type: ignore[no-any-return]


def _content(model: Any) -> Any:
    """What a wrapper is made around; None if this is no wrapper."""
    if isinstance(model, nn.Module):
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel, _FabricModule)):
            return model.module
        return getattr(model, "_orig_mod", None)  # torch.compile's; its class cannot be imported without its compiler
    if type(model).__name__ == "ExportedProgram":
        return model.module()
    return getattr(model, ORIGINAL, None)


def _kind(model: Any) -> str:
    names = {"OptimizedModule": "torch.compile", "_FabricModule": "Fabric", "function": "torch.compile"}
    name = type(model).__name__
    return names.get(name, name)


def _without_compiled_parts(model: nn.Module, taken_off: list[str], caller: str) -> nn.Module:
    """A copy that shares parameters and buffers and has no wrapper inside; the model itself if it has none."""
    while True:
        wrappers = [module for module in model.modules() if _content(module) is not None]
        compiled = [module for module in model.modules() if _is_compiled(module)]
        if not wrappers and not compiled:
            return model
        for wrapper in wrappers:
            _check_hooks(wrapper, caller)
        taken_off += [f"{_kind(wrapper)} (of a part)" for wrapper in wrappers]
        taken_off += ["torch.compile (of a layer)"] * bool(compiled)
        memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        try:
            memo |= {id(wrapper): copy.deepcopy(_content(wrapper), memo) for wrapper in wrappers}
            model = copy.deepcopy(model, memo)
        except Exception as error:  # whatever a module that holds files, locks or graphs raises
            raise ConfigError(
                f"{caller} got a model with {', '.join(dict.fromkeys(taken_off))} that cannot be copied "
                f"({type(error).__name__}: {error}); pass the model as it was before it was compiled"
            ) from error
        for module in model.modules():
            if _is_compiled(module):
                module.__dict__.pop("_compiled_call_impl", None)
                if _has_compiled_forward(module):
                    del module.__dict__["forward"]


def _is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called, or its `forward` replaced by the compiled one."""
    return module.__dict__.get("_compiled_call_impl") is not None or _has_compiled_forward(module)


def _has_compiled_forward(module: nn.Module) -> bool:
    original = getattr(module.__dict__.get("forward"), ORIGINAL, None)
    return original is not None and getattr(original, "__func__", None) is type(module).forward


def _check_hooks(wrapper: Any, caller: str) -> None:
    if isinstance(wrapper, nn.Module) and has_hooks(wrapper):
        raise ConfigError(
            f"{caller} got a {type(wrapper).__name__} with hooks of its own, which the network inside lacks; register "
            "them on the network inside, or pass that"
        )
