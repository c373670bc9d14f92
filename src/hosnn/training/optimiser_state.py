"""The state of an optimiser as tensors of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hosnn.errors import CheckpointError
from hosnn.training.averaging import OWN_WEIGHTS

NONE = "none"

ENTRIES = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter: a number, and two tensors of its shape."""


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by parameter number and name, e.g. "0.exp_avg"; "0.none": it never had a gradient."""
    state = optimiser.state_dict()["state"]
    count = sum(len(group["params"]) for group in optimiser.param_groups) if state else 0
    without = {f"{number}.{NONE}": torch.zeros(0) for number in range(count) if number not in state}
    return without | {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for number, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimiser(optimiser: torch.optim.AdamW, tensors: Mapping[str, Tensor], source: Path) -> None:
    """The inverse of `optimiser_state`, in place.  Raises CheckpointError if it is damaged, or of other parameters."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    shapes = {str(number): parameter.shape for number, parameter in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    without = set()
    for key, value in tensors.items():
        if key.startswith(OWN_WEIGHTS):
            continue
        number, _, name = key.partition(".")
        if name == NONE and number in shapes:
            without.add(int(number))
            continue
        shape = torch.Size() if name == "step" else shapes.get(number)
        if number not in shapes or name not in ENTRIES or value.shape != shape or not value.is_floating_point():
            raise CheckpointError(
                f"{source} holds {name!r} {tuple(value.shape)} of parameter {number}, which this network does not "
                f"have; expected {', '.join(ENTRIES)} of {len(shapes)} parameters in the shapes they were trained in; "
                "train it again"
            )
        state.setdefault(int(number), {})[name] = value
    for parameter, entries in state.items():
        if missing := [name for name in ENTRIES if name not in entries]:
            raise CheckpointError(f"{source} lacks {' and '.join(missing)} of parameter {parameter}; train it again")
    if state and (absent := [number for number in range(len(parameters)) if number not in state.keys() | without]):
        raise CheckpointError(
            f"{source} lacks the optimiser's state of parameters {', '.join(map(str, absent))} of {len(parameters)}; "
            "train it again"
        )
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
