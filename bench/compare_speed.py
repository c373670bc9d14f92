"""Is one checkout as fast as another?  Our contestants of `hosnn bench` in both, taking turns round by round.

    python bench/compare_speed.py OLD NEW --only layer training attack inference --pairs 7

A pair is one new process per checkout.  In it each contestant is built once and then has turns of at least 0.1 s, the
checkout that begins changing from turn to turn.  One pair decides little: a process is faster or slower as its memory
happens to lie.  Printed: time in NEW over time in OLD, median and quartiles over pairs.  Exit status 1 if a median is
above --limit.  Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEAST = 0.1
"""Seconds that one turn lasts at least."""

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""glibc's settings under which freed memory stays with the process.  By default a layer's buffers may or may not be
given back to the system after every call, as they happen to lie, which changes its time by up to a factor of 2.7."""


class Worker:
    """A process that runs contestants of one checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src"), "PYTHONSAFEPATH": "1"} | KEEP_MEMORY
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a worker ended with status {self.process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    """A worker's loop: one JSON line in, one out."""
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch

    from hosnn.cli.bench import cases

    work: list[Any] = []
    run: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        answer: Any = None
        if "only" in question:
            work = cases(question["only"], False, "cpu")
            answer = [(case.title, [name for name in contestants(case) if is_ours(name)]) for case in work]
        elif "build" in question:
            number, name = question["build"]
            chosen = contestants(work[number])[name]
            torch.set_num_threads(chosen.threads)
            run = chosen.make()
            run()
            started = time.perf_counter()
            run()
            answer = time.perf_counter() - started
        else:
            started = time.perf_counter()
            for _ in range(question["turns"]):
                run()
            answer = (time.perf_counter() - started) / question["turns"]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def contestants(case: Any) -> dict[str, Any]:
    """By name; older checkouts call them entries."""
    return dict((case.contestants if hasattr(case, "contestants") else case.entries)())


def is_ours(name: str) -> bool:
    return name.startswith("hosnn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", default=["layer", "training", "attack", "inference"])
    parser.add_argument("--pairs", type=int, default=7, help="pairs of processes, started anew")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant in each process")
    parser.add_argument("--limit", type=float, default=1.03)
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    for pair in range(arguments.pairs):
        checkouts = (arguments.old, arguments.new)
        workers = [Worker(checkout) for checkout in checkouts]
        for name, times in measure(workers, arguments.only, arguments.rounds):
            old, new = (statistics.median(of_one) for of_one in times)
            ratios.setdefault(name, []).append(new / old)
            print(f"pair {pair + 1} of {arguments.pairs}; {name}: {new / old:.3f}", file=sys.stderr, flush=True)
        for worker in workers:
            worker.end()
    for name, of_pairs in ratios.items():
        low, middle, high = statistics.quantiles(of_pairs, n=4, method="inclusive")
        print(f"{name}: {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
    slower = [name for name, of_pairs in ratios.items() if statistics.median(of_pairs) > arguments.limit]
    for name in slower:
        print(f"slower than {arguments.limit}: {name}")
    return 1 if slower else 0


def measure(workers: list[Worker], only: list[str], rounds: int) -> Iterator[tuple[str, list[list[float]]]]:
    """Each contestant that both checkouts have, with the times of its turns in either."""
    old, new = (worker.ask(only=only) for worker in workers)
    for number, ((title, before), (_, after)) in enumerate(zip(old, new, strict=True)):
        for name in before:
            if name not in after:
                print(f"{title}; {name}: not in the new checkout", file=sys.stderr, flush=True)
                continue
            once = [worker.ask(build=[number, name]) for worker in workers]
            turns = max(1, min(1000, round(LEAST / max(*once, 1e-6))))
            times: list[list[float]] = [[], []]
            for at in range(rounds):
                for which in (0, 1) if at % 2 else (1, 0):
                    times[which].append(workers[which].ask(turns=turns))
            yield f"{title}; {name}", times


if __name__ == "__main__":
    if "--worker" in sys.argv:
        serve()
    else:
        sys.exit(main())
