"""Contestants (implementations of the same work) timed in turn, round by round, and compared with a reference.

On a CPU only ratios are kept, as absolute times depend on the machine and its load; on a GPU both are.
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

MIN_TURN = 0.05
"""Seconds that one turn lasts at least; a faster call is repeated several times in a row."""

LONG_CALL = 10.0
"""Seconds of a first call after which there is no further warm-up."""

Call = Callable[[], Tensor]
"""Does the work once and returns a result, which is compared with that of another contestant."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a case.

    make     builds the call that is timed; it may raise if the contestant is not available here
    threads  of torch while it runs
    like     the contestant whose result it should equal ("" for none)
    memory   whether to measure its peak memory, in a process of its own
    """

    make: Callable[[], Call]
    threads: int = 1
    like: str = ""
    memory: bool = True


class Case(Protocol):
    """Work that several contestants can do; it can be pickled, and has the same contestants in any process."""

    @property
    def title(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def reference(self) -> str:
        """The contestant that the others' times are divided by."""

    def contestants(self) -> dict[str, Contestant]: ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one contestant took for one case.

    ratio      time over the reference's, the median over rounds; low, high: its quartiles
    seconds    median time, on a GPU only
    memory     peak bytes, see `peak_memory.peak_memory`; None if not measured
    agreement  share of the result's elements equal to those of `Contestant.like`; None without one
    refused    why it could not run, "" if it did
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
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(
    case: Case, rounds: int, memory: bool = True, min_turn: float = MIN_TURN, names: Sequence[str] = ()
) -> list[Timing]:
    """Every contestant of a case that is available here, timed side by side.  Raises if the reference is not.

    names  contestants whose names contain one of these take part, as does the reference; all if empty
    """
    if rounds < 1:
        raise ConfigError(f"bench got {rounds} rounds; expected at least 1")
    contestants = {
        name: contestant
        for name, contestant in case.contestants().items()
        if not names or name == case.reference or any(part.lower() in name.lower() for part in names)
    }
    threads = {name: contestant.threads for name, contestant in contestants.items()}
    threads_before = torch.get_num_threads()
    torch.compiler.reset()
    try:
        # Compiled contestants share code; beyond a limit of versions torch would silently run it uncompiled.
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            calls, first_results, first_seconds, refused = _build(contestants, case.reference)
            times = race(calls, rounds, threads, case.device, min_turn, first_seconds)
    finally:
        torch.set_num_threads(threads_before)
    rows = []
    for name, contestant in contestants.items():
        if name in refused:
            rows.append(Timing(case=case.title, contestant=name, threads=contestant.threads, refused=refused[name]))
            continue
        own_times, reference_times = times[name], times[case.reference]
        ratios = [own / reference for own, reference in zip(own_times, reference_times, strict=True)]
        low, high = quartiles(ratios)
        make = partial(_make, case, name)
        peak = peak_memory(make, contestant.threads, case.device) if memory and contestant.memory else None
        rows.append(
            Timing(
                case=case.title,
                contestant=name,
                threads=contestant.threads,
                ratio=statistics.median(ratios),
                low=low,
                high=high,
                seconds=statistics.median(own_times) if case.device == "cuda" else None,
                memory=peak,
                agreement=agreement(first_results[name], first_results[contestant.like])
                if contestant.like in first_results
                else None,
            )
        )
    return rows


def _make(case: Case, contestant: str) -> Call:
    """The contestant's call, built in whichever process this runs."""
    return case.contestants()[contestant].make()


def _build(
    contestants: Mapping[str, Contestant], reference: str
) -> tuple[dict[str, Call], dict[str, Tensor], dict[str, float], dict[str, str]]:
    """Build every contestant and call it once: its call, first result and seconds; or why it is not available."""
    calls, results, seconds, refused = {}, {}, {}, {}
    for name, contestant in contestants.items():
        torch.set_num_threads(contestant.threads)
        try:
            call = contestant.make()
            start = time.perf_counter()
            results[name] = call().detach().cpu()
            calls[name], seconds[name] = call, time.perf_counter() - start
        except Exception as error:  # whatever a peer or a compiler raises, the others are still measured
            if name == reference:
                raise
            refused[name] = _reason(error)
    return calls, results, seconds, refused


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, HosnnError) else f"{type(error).__name__}: {text}"


def race(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    threads: Mapping[str, int] | None = None,
    device: str = "cpu",
    min_turn: float = MIN_TURN,
    first_seconds: Mapping[str, float] | None = None,
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, one number per round.

    In every round each contestant has one turn, the first one being the next contestant each time.  A turn is as many
    calls as took `min_turn` seconds in the warm-up, with a fixed number of threads and no garbage collection.

    first_seconds  seconds of a call made before; one of at least `LONG_CALL` replaces the warm-up
    """
    threads, first_seconds = threads or {}, first_seconds or {}
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    with _without_collection():
        for name, call in calls.items():
            torch.set_num_threads(threads.get(name, 1))
            once = first_seconds.get(name, 0.0)
            if once < LONG_CALL:
                _turn(call, 1, device)
                once = _turn(call, 1, device)
            repeats[name] = max(1, min(1000, math.ceil(min_turn / max(once, 1e-9))))
        names = list(calls)
        for start in range(rounds):
            gc.collect()
            for name in rotated(names, start):
                torch.set_num_threads(threads.get(name, 1))
                times[name].append(_turn(calls[name], repeats[name], device))
    return times


def _turn(call: Callable[[], object], repeats: int, device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else None
    if wait:
        wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if wait:
        wait()
    return (time.perf_counter() - start) / repeats


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
