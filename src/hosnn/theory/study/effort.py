"""How much a study simulates, and means with their confidence bands."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hosnn.errors import ConfigError

Rows = list[dict[str, Any]]
"""One dict per condition: what was set, what theory says, what was measured."""


@dataclass(frozen=True)
class Effort:
    """Sizes of the simulations.  Raises ConfigError below the smallest that mean anything.

    neurons  per condition      steps  of a long run      seed  of every random draw
    """

    neurons: int = 1000
    steps: int = 1200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.neurons < 16 or self.steps < 80:
            raise ConfigError(f"{self}: expected at least 16 neurons and 80 steps")

    def generator(self, purpose: int) -> torch.Generator:
        """A stream of its own for each purpose."""
        return torch.Generator().manual_seed(1000 * self.seed + purpose)


def mean_and_half_width(values: Tensor) -> tuple[float, float]:
    """Mean over independent neurons and half the width of its 95 % band.  [N]"""
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(values.numel()))
