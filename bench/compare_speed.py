"""Is one checkout as fast as another?  Our contestants of `hosnn bench` in both, taking turns round by round.

    python bench/compare_speed.py OLD NEW --only layer training attack inference --rounds 15

One process per checkout builds each contestant once; then each has a turn of at least 0.1 s per round, the one that
begins changing from round to round.  Printed: time in NEW over time in OLD, median and quartiles over rounds.  Exit
status 1 if a median is above --limit.  Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LEAST = 0.1
"""Seconds that one turn lasts at least."""


class Worker:
    """A process that runs contestants of one checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src"), "PYTHONSAFEPATH": "1"}
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
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=float, default=1.03)
    arguments = parser.parse_args()
    workers = [Worker(arguments.old), Worker(arguments.new)]
    old, new = (worker.ask(only=arguments.only) for worker in workers)
    slower = []
    for number, ((title, before), (_, after)) in enumerate(zip(old, new, strict=True)):
        for name in before:
            if name not in after:
                print(f"{title}; {name}: not in {arguments.new}", flush=True)
                continue
            once = [worker.ask(build=[number, name]) for worker in workers]
            turns = max(1, min(1000, round(LEAST / max(*once, 1e-6))))
            times: list[list[float]] = [[], []]
            for at in range(arguments.rounds):
                for which in (0, 1) if at % 2 else (1, 0):
                    times[which].append(workers[which].ask(turns=turns))
            ratios = [second / first for first, second in zip(*times, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            print(f"{title}; {name}: {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
            if middle > arguments.limit:
                slower.append(f"{title}; {name}")
    for name in slower:
        print(f"slower than {arguments.limit}: {name}")
    return 1 if slower else 0


if __name__ == "__main__":
    if "--worker" in sys.argv:
        serve()
    else:
        sys.exit(main())
