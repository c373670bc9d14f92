"""Speed side by side: contestants called in turn, round by round, and what they are worth beside a reference.

On a CPU only ratios are kept; an absolute time means something on a named GPU alone.
"""

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from hosnn.benchmark.peak_memory import peak_memory
from hosnn.errors import ConfigError, HosnnError

LEAST = 0.05
"""Seconds that one timing lasts at least; what is faster is called several times in a row."""

LONG = 10.0
"""Seconds of a first call after which there is no further warm-up."""

Call = Callable[[], Tensor]
"""Does the work once; the tensor returned is compared with other contestants'."""


@dataclass(frozen=True)
class Contestant:
    """A contestant.

    make     builds what is then called again and again; it may raise if it cannot be had here
    threads  of torch while it runs
    like     the contestant whose results it should share ("" for none)
    memory   whether its peak memory is worth a process of its own
    """

    make: Callable[[], Call]
    threads: int = 1
    like: str = ""
    memory: bool = True


class Case(Protocol):
    """Something to be done by several contestants; it can be pickled, and makes the same entries in any process."""

    @property
    def title(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def reference(self) -> str:
        """The contestant that the others' times are divided by."""

    def entries(self) -> dict[str, Contestant]: ...


@dataclass(frozen=True)
class Timing:
    """What one contestant took for one case.

    ratio      time over the reference's, round by round, the median; low, high: quartiles
    seconds    median time, on a GPU only
    memory     peak bytes, see `peak_memory.peak_memory`; None if not measured
    agreement  share of results equal to those of the entry it should be like, None if it should be like none
    refused    why it did not run, "" if it did
    """

    case: str
    contestant: str
    threads: int = 1
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float | None = None
    memory: int | None = None
    agreement: float | None = None
    refused: str = ""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(
    case: Case, rounds: int, memory: bool = True, least: float = LEAST, names: Sequence[str] = ()
) -> list[Timing]:
    """Every contestant of a case that can be had here, timed side by side.  Raises if the reference cannot be had.

    names  parts of the names of contestants that take part, besides the reference; all if none are given
    """
    if rounds < 1:
        raise ConfigError(f"bench got {rounds} rounds; expected at least 1")
    entries = {
        name: entry
        for name, entry in case.entries().items()
        if not names or name == case.reference or any(part.lower() in name.lower() for part in names)
    }
    threads = {name: entry.threads for name, entry in entries.items()}
    before = torch.get_num_threads()
    torch.compiler.reset()
    try:
        # Compiled contestants share code, and past a limit of versions torch would quietly run them uncompiled.
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            runs, first, known, refused = _ready(entries, case.reference)
            times = race(runs, rounds, threads, case.device, least, known)
    finally:
        torch.set_num_threads(before)
    rows = []
    for name, entry in entries.items():
        if name in refused:
            rows.append(Timing(case.title, name, entry.threads, refused=refused[name]))
            continue
        own, reference = times[name], times[case.reference]
        ratios = [one / other for one, other in zip(own, reference, strict=True)]
        low, high = quartiles(ratios)
        make = partial(_make, case, name)
        peak = peak_memory(make, entry.threads, case.device) if memory and entry.memory else None
        rows.append(
            Timing(
                case.title,
                name,
                entry.threads,
                statistics.median(ratios),
                low,
                high,
                statistics.median(own) if case.device == "cuda" else None,
                peak,
                agreement(first[name], first[entry.like]) if entry.like in first else None,
            )
        )
    return rows


def _make(case: Case, contestant: str) -> Call:
    """The contestant, built in whichever process this runs."""
    return case.entries()[contestant].make()


def _ready(
    entries: Mapping[str, Contestant], reference: str
) -> tuple[dict[str, Call], dict[str, Tensor], dict[str, float], dict[str, str]]:
    """Contestants built and called once, what that gave and how long it took, and why others cannot be had."""
    runs, first, seconds, refused = {}, {}, {}, {}
    for name, entry in entries.items():
        torch.set_num_threads(entry.threads)
        try:
            run = entry.make()
            start = time.perf_counter()
            first[name] = run().detach().cpu()
            runs[name], seconds[name] = run, time.perf_counter() - start
        except Exception as error:  # whatever a peer or a compiler raises, the others go on
            if name == reference:
                raise
            refused[name] = _reason(error)
    return runs, first, seconds, refused


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, HosnnError) else f"{type(error).__name__}: {text}"


def race(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    threads: Mapping[str, int] | None = None,
    device: str = "cpu",
    least: float = LEAST,
    known: Mapping[str, float] | None = None,
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, one number per round.

    In every round each contestant has one turn, and the one that begins moves on by one from round to round.  A turn
    is as many calls as last `least` seconds by the warm-up, with a fixed number of threads and no garbage collection.

    known  seconds of a first call made before; from `LONG` on it was warm-up enough
    """
    threads, known = threads or {}, known or {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    calls = {}
    with _without_collection():
        for name, run in runs.items():
            torch.set_num_threads(threads.get(name, 1))
            once = known.get(name, 0.0)
            if once < LONG:
                _turn(run, 1, device)
                once = _turn(run, 1, device)
            calls[name] = max(1, min(1000, math.ceil(least / max(once, 1e-9))))
        names = list(runs)
        for start in range(rounds):
            gc.collect()
            for name in rotated(names, start):
                torch.set_num_threads(threads.get(name, 1))
                times[name].append(_turn(runs[name], calls[name], device))
    return times


def _turn(run: Callable[[], object], calls: int, device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else None
    if wait:
        wait()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    if wait:
        wait()
    return (time.perf_counter() - start) / calls


def rotated(names: Sequence[str], start: int) -> list[str]:
    """The names in order, beginning with number `start` modulo their count."""
    at = start % len(names) if names else 0
    return [*names[at:], *names[:at]]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def agreement(one: Tensor, other: Tensor, atol: float = 1e-3) -> float:
    """The share of elements that are equal within `atol`; 0 for tensors of different shapes."""
    if one.shape != other.shape:
        return 0.0
    return float(torch.isclose(one.float(), other.float(), rtol=0, atol=atol).double().mean())


@contextmanager
def _without_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
