"""Peak memory of a call."""

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

Make = Callable[[], Callable[[], object]]
"""Builds the call that is measured."""


def peak_memory(make: Make, threads: int = 1, device: str = "cpu") -> int | None:
    """Bytes that one call needs at its peak, besides what is allocated between calls.  None if it cannot be measured.

    make     builds the call; it can be pickled
    threads  of torch while it runs on a CPU
    On a GPU from torch's allocator.  On Linux in a new process: the peak of its resident memory (VmHWM, reset before
    the call) minus its resident memory before the call, after two calls for warm-up; its malloc returns freed memory at
    once.  Inputs, weights and buffers that a library keeps between calls are not counted.
    """
    if device == "cuda":
        run = make()
        run()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    if not Path("/proc/self/clear_refs").exists():
        return None
    with (
        _environment(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536"),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        try:
            return pool.submit(_peak, make, threads).result()
        except BrokenProcessPool:  # killed, most likely out of memory: the benchmark continues without this number
            return None


def _peak(make: Make, threads: int) -> int | None:
    torch.set_num_threads(threads)
    run = make()
    for _ in range(2):
        run()
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    before = _resident("VmRSS")
    run()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
