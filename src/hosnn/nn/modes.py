"""A model's device, and contexts that put it in eval mode or stop updates of its running statistics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: Callable[..., Any]) -> Iterator[None]:
    """The model in eval mode, and afterwards every module of it in its former mode.  Plain functions have no mode."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def set_evaluating(model: nn.Module) -> None:
    """Put every module in eval mode, also those whose eval() raises, as that of an exported program does."""
    for module in model.modules():
        module.training = False


@contextmanager
def statistics_held(model: nn.Module) -> Iterator[None]:
    """Inside, normalisation in train mode uses each batch's statistics but updates no running mean, variance or count.

    Only torch's normalisation layers, and modules made of them, are affected.
    """
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
    ]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def device_of(model: Callable[..., Any], like: Tensor | None = None) -> torch.device:
    """The device of the model's parameters; that of `like`, or the CPU, if it has none."""
    parameter = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    if parameter is not None:
        return parameter.device
    return torch.device("cpu") if like is None else like.device
