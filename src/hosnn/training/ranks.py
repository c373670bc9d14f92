"""Ranks: the processes that train one network together, each on its part of every batch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hosnn.errors import ConfigError, HosnnError, TrainingError
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.normalisation import TimeBatchNorm
from hosnn.training.experiment import Optimisation
from hosnn.training.objectives import Objective

T = TypeVar("T")


@dataclass(frozen=True)
class _Raised:
    """An error of the first rank, on its way to the others."""

    error: HosnnError


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of the `world_size` that run the same code; a single one communicates nothing."""

    fabric: Fabric

    @property
    def rank(self) -> int:
        return self.fabric.global_rank

    @property
    def world_size(self) -> int:
        return self.fabric.world_size

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return self.total(float(flag)) > 0

    def mean(self, value: float | Tensor) -> float:
        return self.total(value) / self.world_size

    def total(self, value: float | Tensor) -> float:
        """The sum over ranks, the same bits on each."""
        if self.world_size == 1:
            return float(value)
        total = torch.as_tensor(value, dtype=torch.float64).to(self.fabric.device, copy=True)
        distributed.all_reduce(total)
        return float(total)

    def on_first(self, action: Callable[[], T]) -> T:
        """Run `action` on the first rank only; every rank returns its result, or raises its HosnnError."""
        if self.world_size == 1:
            return action()
        outcome: T | _Raised | None = None
        if self.rank == 0:
            try:
                outcome = action()
            except HosnnError as error:
                outcome = _Raised(error)
        outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome  # type: ignore[return-value]  # None only where `action` returns it

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in their order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all are filled now

    def average_statistics(self, network: nn.Module) -> None:
        """Replace running statistics of normalisation by their mean over ranks, in place."""
        running = [
            statistic
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for statistic in (module.running_mean, module.running_var)
            if statistic is not None
        ]
        if self.world_size == 1 or not running:
            return
        concatenated = torch.cat(running)
        distributed.all_reduce(concatenated)
        means = torch.split(concatenated / self.world_size, [len(statistic) for statistic in running])
        for statistic, mean in zip(running, means, strict=True):
            statistic.copy_(mean)

    def without_gradient_exchange(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, each rank accumulates its own gradients, not yet summed over ranks."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    @contextmanager
    def communicating(self, what_is_kept: str) -> Iterator[None]:
        """Turn failures of communication into a TrainingError whose message contains `what_is_kept`."""
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error).lower()):
                raise
            raise TrainingError(
                f"rank {self.rank} of {self.world_size} lost another rank: {str(error).splitlines()[0]}.  Its "
                f"message, if it could print one, says why; {what_is_kept}; resume with --resume on as many ranks"
            ) from error


class LossOf(nn.Module):
    """The mean loss as a module's forward pass, because DDP exchanges gradients only of what its own forward computes.

    Used instead of Fabric's own wrapper, which rounds images to bfloat16, omits autocast around a marked method on one
    device (lightning-fabric 2.6.6), and returns float64 as float32.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, objective: Objective, x: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
        return objective.losses(self.network, x, perturbed, y).mean()


def share_statistics(network: nn.Module) -> None:
    """Make BatchNorm in train mode take its statistics over the batches of all ranks, in place."""
    for module in network.modules():
        if isinstance(module, TimeBatchNorm):
            module.over_ranks = True


def checked_batch_size(optim: Optimisation, images: int, ranks: int) -> int:
    """Images per optimiser step, of `images` in all.  Raises ConfigError if micro-batches would differ in size."""
    batch = min(optim.batch_size, images)
    if batch % (ranks * optim.accumulate):
        raise ConfigError(
            f"a batch of {batch} images cannot be shared evenly by {ranks} ranks in {optim.accumulate} parts each; "
            f"expected a multiple of {ranks * optim.accumulate}: set optim.batch_size or optim.accumulate, or take "
            "other --devices"
        )
    return batch
