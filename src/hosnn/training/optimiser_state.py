"""The state of an optimiser as tensors of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hosnn.errors import CheckpointError


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by parameter number and name, e.g. "0.exp_avg"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for number, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], source: Path) -> None:
    """The inverse of `optimiser_state`, in place.  Raises CheckpointError if it is of other parameters."""
    full = optimiser.state_dict()
    shapes = [parameter.shape for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdigit():
            continue  # weights, see `averaging`
        if int(number) >= len(shapes) or (value.dim() and value.shape != shapes[int(number)]):
            raise CheckpointError(
                f"{source} holds {name} {tuple(value.shape)} of parameter {number}, which this network does not have; "
                f"expected {len(shapes)} parameters in the shapes they were trained in; train it again"
            )
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": full["param_groups"]})
