"""The running process: devices and precision (Lightning Fabric), threads, global random state, exit."""

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, NoReturn

import numpy
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from hosnn.errors import ConfigError, TrainingError

LEAST_LIMIT = 16
"""Threads that are allowed on any machine."""

LOAD_SECONDS = 0.2
"""How long is looked at the load of the cores."""

RANK_TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others before it fails; validation and saving take less."""


def check_threads(threads: int) -> None:
    """Raises ConfigError unless `threads` is a number of CPU threads that helps here, or 0 for torch's own choice."""
    cores = os.cpu_count() or 1
    most = max(LEAST_LIMIT, 2 * cores)
    if not 0 <= threads <= most:
        raise ConfigError(
            f"threads got {threads}; expected 0 (torch's own choice), or 1 to {most} on this machine of {cores} cores"
        )


def check_seed(seed: int) -> None:
    """Raises ConfigError unless all random generators take the seed."""
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed got {seed!r}; expected a whole number, 0 to 2^63 - 1")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores() -> int:
    """Cores without other work, at least 1: those idle for the next LOAD_SECONDS, or by the load average."""
    cores = available_cores()
    before = _idle_and_total()
    if before is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return max(1, cores - round(load))
    time.sleep(LOAD_SECONDS)
    idle, total = (later - earlier for later, earlier in zip(_idle_and_total() or before, before, strict=True))
    machine = os.cpu_count() or 1
    return max(1, min(cores, round(machine * idle / total) if total > 0 else cores))


def _idle_and_total() -> tuple[int, int] | None:
    """Ticks that all cores were idle, and all ticks, since the machine started; None where Linux's /proc is not."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks[3:5]), sum(ticks)


def threads_by_load() -> int:
    """Threads of torch that help now: torch's own choice, at most one for each core without other work.

    What the user's environment says (OMP_NUM_THREADS, MKL_NUM_THREADS) holds.
    """
    own = torch.get_num_threads()
    if own == 1 or any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        return own
    return min(own, free_cores())


Precision = Literal["32-true", "64-true", "bf16-mixed"]


@dataclass(frozen=True)
class Hardware:
    """The hardware to run on, and how."""

    accelerator: str = "auto"  # cpu, cuda, mps or auto
    devices: int = 1  # number of accelerators to use on each machine
    nodes: int = 1  # number of machines, where a cluster's scheduler started this command on several
    precision: Precision = "32-true"  # bf16-mixed is for training, on GPUs above all; results are measured in 32-true
    threads: int = 0  # CPU threads of torch; 0: torch's own choice, at most one for each core that is free at the start

    def fabric(self, several: bool = False) -> Fabric:
        """A launched Fabric.  Raises ConfigError if the accelerator is not there, TrainingError if another rank ends.

        several  whether the caller can use several devices, with a process (rank) for each.  Under torchrun these are
                 the processes that it started; otherwise the first process starts the others.
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
        torch.set_num_threads(self.threads or threads_by_load())
        # Training keeps buffers equal on all ranks by itself; broadcasting signatures at every step would cost time.
        ddp = DDPStrategy(timeout=RANK_TIMEOUT, broadcast_buffers=False)
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=ddp if devices * nodes > 1 else "auto",
                precision=self.precision,
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"cannot use {devices} x accelerator {self.accelerator!r} at precision {self.precision!r}: {error}"
                "; `hosnn doctor` lists what this machine has"
            ) from error
        try:
            fabric.launch()
        except torch.distributed.DistError as error:
            raise TrainingError(
                f"rank {fabric.global_rank} of {fabric.world_size} lost another rank while connecting: "
                f"{str(error).splitlines()[0]}.  Its message, if it could print one, says why; then give the same "
                "command again"
            ) from error
        return fabric


def leave(status: int) -> NoReturn:
    """End the process with a status.

    A rank of several exits without cleaning up: gloo's threads sometimes abort a process that cleans up, with another
    status, above all after other ranks have ended.  All files are written by then.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, on CUDA, convolutions in float32 rather than TF32, by the same algorithm each time."""
    if not torch.cuda.is_available():
        yield
        return
    enabled = torch.backends.cudnn.enabled
    with torch.backends.cudnn.flags(enabled=enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def as_alone() -> Iterator[None]:
    """Inside, work does not depend on what its caller set: inference mode, autocast and no_grad are off.

    Afterwards the caller's random numbers and number of threads are as before, also after an exception.
    """
    threads = torch.get_num_threads()
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(own_randomness())
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python, as a user's model may draw random numbers from any of them."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def own_randomness(seed: int | None = None) -> Iterator[None]:
    """Inside, global random numbers start from `seed` (None: continue); afterwards their former state is restored."""
    numpy_state, python_state = numpy.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
            if seed is not None:
                seed_everything(seed)
            yield
    finally:
        numpy.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
