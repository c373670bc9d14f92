"""The machine: devices and precision (Lightning Fabric), threads, versions, stopping politely."""

import os
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
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


def versions() -> dict[str, str]:
    """Versions of hosnn, Python and the libraries a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("hosnn", "torch", "numpy", "lightning-fabric"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """The hardware a result was measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123  (one line, no Path needed)
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


class Deadline:
    """Tells a loop when to stop: the time is up, or the user pressed Ctrl-C (or sent SIGTERM) once."""

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"max-time got {seconds:g} seconds; expected a time > 0")
        self._end = None if seconds is None else time.monotonic() + seconds
        self.signalled = 0

    @property
    def left(self) -> float | None:
        """Seconds until the time is up; None if it never is."""
        return None if self._end is None else self._end - time.monotonic()

    @property
    def reached(self) -> bool:
        return bool(self.signalled) or (self._end is not None and time.monotonic() >= self._end)


@contextmanager
def stopping(deadline: Deadline) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask `deadline` to stop at the next safe point; a second interrupts at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if deadline.signalled:
            raise KeyboardInterrupt
        deadline.signalled = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
