"""The machine: devices and precision (Lightning Fabric), threads, versions, stopping politely."""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NoReturn

import numpy
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from hosnn.errors import ConfigError

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others before it gives them up; validation and saving are shorter."""


def check_threads(threads: int) -> None:
    """Raises ConfigError for a number that is none of CPU threads."""
    if not 0 <= threads <= 4096:
        raise ConfigError(f"threads got {threads}; expected 0 (torch's own choice) or a number of CPU threads")


Precision = Literal["32-true", "64-true", "bf16-mixed"]


@dataclass(frozen=True)
class Hardware:
    """Where to run."""

    accelerator: str = "auto"  # cpu, cuda, mps or auto
    devices: int = 1  # how many of them, on each machine
    nodes: int = 1  # machines, each with so many devices, that a cluster's scheduler started this on
    precision: Precision = "32-true"  # bf16-mixed is for training on GPUs; results are measured in 32-true
    threads: int = 0  # CPU threads of torch; 0 leaves torch's own choice

    def fabric(self, several: bool = False) -> Fabric:
        """A launched Fabric.  Raises ConfigError if the accelerator is not there.

        several  whether the caller's work can be shared by several devices, a process (rank) each.  What torchrun
                 started has as many as it says; otherwise the first process starts the others.
        """
        check_threads(self.threads)
        devices, nodes = self.devices, self.nodes
        if TorchElasticEnvironment.detect():
            devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            nodes = int(os.environ["WORLD_SIZE"]) // devices
        if min(devices, nodes) < 1:
            raise ConfigError(f"devices got {devices} and nodes {nodes}; expected at least 1 of each")
        if devices * nodes > 1 and not several:
            raise ConfigError(
                f"devices got {devices}, nodes {nodes}; only `hosnn train` shares work among devices, use 1 here"
            )
        if self.threads:
            torch.set_num_threads(self.threads)
        # Buffers are alike on all ranks by what training does; a signature would be sent anew in every step.
        share = DDPStrategy(timeout=PATIENCE, broadcast_buffers=False) if devices * nodes > 1 else "auto"
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=share,
                precision=self.precision,
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"cannot use {devices} x accelerator {self.accelerator!r} at precision {self.precision!r}: {error}"
                "; `hosnn doctor` lists what is here"
            ) from error
        fabric.launch()
        return fabric


def leave(status: int) -> NoReturn:
    """End the process with a status.

    One rank of several goes without ceremony: gloo's threads now and then abort a process on its way out, with another
    status, above all where their peers are gone.  Everything that was to be kept is written by then.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def full_precision() -> Iterator[None]:
    """On CUDA, convolutions in float32 proper rather than TF32, by the same algorithm each time.  Elsewhere nothing."""
    if not torch.cuda.is_available():
        yield
        return
    enabled = torch.backends.cudnn.enabled
    with torch.backends.cudnn.flags(enabled=enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def seed_everything(seed: int) -> None:
    """The random numbers of torch, numpy and Python, whichever of them a foreign model draws from."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def own_randomness(seed: int | None = None) -> Iterator[None]:
    """Random numbers as they were afterwards; inside, drawn from `seed` if one is given."""
    state, own = numpy.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
            if seed is not None:
                seed_everything(seed)
            yield
    finally:
        numpy.random.set_state(state)  # noqa: NPY002
        random.setstate(own)
