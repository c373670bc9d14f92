"""How much longer the demo takes while busy loops share its cores: at most 2.5 times with one loop a core of two.

    python bench/busy_machine.py [--loops 2] [--rounds 3] [--out FILE.json]

Times what `make demo` runs, in a new folder each time, in turn without and with the loops.  The machine must be idle.
The exit status is 1 if the median ratio is above the limit.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import tyro

from hosnn.files import write_json
from hosnn.provenance import machine, versions
from hosnn.runtime import available_cores, free_cores

LIMIT = 2.5
LOOP = "while True: pass"


def demo_seconds(loops: int) -> float:
    """Wall time of the demo beside busy loops, which keep a core each busy as other jobs do."""
    free = free_cores()
    if free < available_cores():
        sys.exit(f"{free} of {available_cores()} cores are free; wait until nothing else runs")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for _ in range(loops):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP]))
            stack.callback(loop.kill)
        command = [sys.executable, "-m", "hosnn", "reproduce", "demo", "--runs", folder, "--out", folder]
        started = time.monotonic()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.monotonic() - started


def main(loops: int = 2, rounds: int = 3, out: Path | None = None) -> int:
    pairs = [(demo_seconds(0), demo_seconds(loops)) for _ in range(rounds)]
    ratio = statistics.median(busy / idle for idle, busy in pairs)
    for idle, busy in pairs:
        print(f"alone {idle:.1f} s, beside {loops} busy loops {busy:.1f} s: {busy / idle:.2f} times")
    print(f"median {ratio:.2f} times, limit {LIMIT}")
    if out is not None:
        seconds = {"idle_seconds": [idle for idle, _ in pairs], "busy_seconds": [busy for _, busy in pairs]}
        result = {
            "loops": loops,
            **seconds,
            "ratio": ratio,
            "limit": LIMIT,
            "versions": versions(),
            "machine": machine(),
        }
        write_json(out, result, indent=2)
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
