"""Batch normalisation of currents over time: one set of statistics for all time steps, or one for each.

Shapes: T time, B batch, C channels (or dense neurons), H height, W width.
"""

from enum import Enum
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified
from hosnn.nn.neurons import Extrapolation, step_number


@identified("Norm")
class Norm(Enum):
    """How currents are normalised before neurons.

    NONE      not at all
    SHARED    by one mean and variance per channel, over all time steps
    PER_STEP  by those of each time step
    """

    NONE = "none"
    SHARED = "shared"
    PER_STEP = "per-step"


@identified("TimeBatchNorm")
class TimeBatchNorm(nn.Module):
    """Batch normalisation per channel, [T, B, C, H, W] -> the same, or dense currents [T, B, C] -> the same.

    steps  None: mean and variance over time, batch and space together, one gain and bias; a number of time steps: each
           its own statistics, gain and bias
    dense  currents have no height and width
    beyond  how statistics per time step are extended beyond the last one
    over_ranks  attribute, False at first; True: in train(), statistics (and gradients through them) are those of the
            batches of all processes of the default group together, which have to be of the same size
    As usual, train() uses the batch's statistics and updates the running ones, which eval() uses;
    `hosnn.nn.modes.statistics_held` stops the update.
    Raises ShapeError for other shapes, more time steps than `beyond` allows, or one value per channel to train on.
    """

    def __init__(
        self, channels: int, steps: int | None = None, dense: bool = False, beyond: Extrapolation = Extrapolation.ERROR
    ) -> None:
        super().__init__()
        if channels < 1 or (steps is not None and steps < 1):
            raise ConfigError(f"TimeBatchNorm got {channels} channels and {steps} steps; expected at least 1 of each")
        kind = nn.BatchNorm1d if dense else nn.BatchNorm2d
        self.channels, self.steps, self.beyond, self.dimensions = channels, steps, beyond, 3 if dense else 5
        self.each = nn.ModuleList(kind(channels) for _ in range(steps or 1))
        self.over_ranks = False

    def forward(self, currents: Tensor) -> Tensor:
        self._check(currents)
        if self.steps is None:
            return self._normalised(0, currents.flatten(0, 1)).view_as(currents)
        return torch.stack(
            [self._normalised(step_number(t, self.steps, self.beyond), step) for t, step in enumerate(currents)]
        )

    def step(self, currents: Tensor, t: int, beyond: Extrapolation | None = None) -> Tensor:
        """The currents of step t >= 0 alone, [B, C, ..]; `beyond` overrides the layer's own."""
        self._check(currents[None])
        number = 0 if self.steps is None else step_number(t, self.steps, beyond or self.beyond)
        return self._normalised(number, currents)

    @property
    def is_affine(self) -> bool:
        """Whether, in its current mode, it is one gain and one offset per channel of feature maps at all steps."""
        norm = self.each[0]
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        return self.steps is None and self.dimensions == 5 and not norm.training and norm.running_mean is not None

    def _normalised(self, number: int, currents: Tensor) -> Tensor:
        norm = self.each[number]
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        if self.over_ranks and norm.training:
            return _over_ranks(norm, currents)
        return norm(currents)  # type: ignore[no-any-return]

    def _check(self, currents: Tensor) -> None:
        shape = tuple(currents.shape)
        if currents.dim() != self.dimensions or shape[2] != self.channels:
            expected = "[T, B, C]" if self.dimensions == 3 else "[T, B, C, H, W]"
            raise ShapeError(f"TimeBatchNorm got currents {shape}; expected {expected} with C = {self.channels}")
        if self.steps is not None and shape[0] > self.steps and self.beyond is Extrapolation.ERROR:
            raise ShapeError(
                f"TimeBatchNorm got {shape[0]} time steps but has statistics for {self.steps}; run at most as many, "
                "choose Extrapolation.HOLD_LAST or Extrapolation.REPEAT, or share statistics over time (Norm.SHARED)"
            )
        values = currents[0] if self.steps is not None else currents  # that share statistics
        if any(norm.training for norm in self.each) and values.numel() <= self.channels:
            raise ShapeError(
                f"TimeBatchNorm got currents {shape}, one value per channel, which have no variance to train on; train "
                "on more images at a time"
            )

    def extra_repr(self) -> str:
        return f"{self.channels}, steps={self.steps}"


def _over_ranks(norm: nn.modules.batchnorm._BatchNorm, currents: Tensor) -> Tensor:
    """`norm` in train mode over the currents [B, C, ...] of all ranks.  Torch's own SyncBatchNorm is for GPUs only."""
    wide = currents.float() if currents.dtype in (torch.bfloat16, torch.float16) else currents
    dims, shape = [0, *range(2, currents.dim())], (1, -1, *[1] * (currents.dim() - 2))
    count = currents.numel() // currents.shape[1] * distributed.get_world_size()
    mean = _sum_over_ranks(wide.sum(dims)) / count
    centred = wide - mean.view(shape)
    variance = _sum_over_ranks(centred.square().sum(dims)) / count
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if norm.track_running_stats and running[0] is not None and running[1] is not None and running[2] is not None:
        with torch.no_grad():
            running[2].add_(1)
            # Without momentum, running statistics are the mean over all batches so far.
            share = 1 / int(running[2]) if norm.momentum is None else norm.momentum
            running[0].lerp_(mean, share)
            running[1].lerp_(variance * (count / (count - 1)), share)
    gain = norm.weight * (variance + norm.eps).rsqrt()
    normalised: Tensor = centred * gain.view(shape) + norm.bias.view(shape)
    return normalised.to(currents.dtype)


def _sum_over_ranks(value: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(value)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """A sum over all ranks, through which the gradients of all ranks flow."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_ranks(gradient)


def normalisations(norm: Norm, channels: int, steps: int, dense: bool = False) -> tuple[TimeBatchNorm, ...]:
    """The normalisation before neurons of a network with `norm`: one layer, or none."""
    if norm is Norm.NONE:
        return ()
    return (TimeBatchNorm(channels, steps if norm is Norm.PER_STEP else None, dense),)
