"""OpenMP's idle threads sleep rather than spin, where the process is our own command line.

A thread that waits spins by default: on a core that another job needs it takes that job's time and its own, and with
busy cores two threads are many times slower than one.  OpenMP reads its settings when torch is loaded, so this comes
first, and imports nothing.
"""

import os
import sys
from collections.abc import MutableMapping, Sequence

POLICY = "OMP_WAIT_POLICY"

SETTINGS = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that say how threads wait; where the user sets one of them, nothing is changed."""


def is_our_command(arguments: Sequence[str]) -> bool:
    """Whether these arguments of the interpreter start `hosnn` or `python -m hosnn`, maybe a module of it.

    arguments  as in sys.orig_argv: the interpreter first
    """
    rest = list(arguments[1:])
    while rest:
        argument = rest.pop(0)
        if argument in ("-X", "-W"):  # options with a value
            del rest[:1]
        elif argument == "-m":
            return bool(rest) and rest[0].partition(".")[0] == "hosnn"
        elif not argument.startswith("-"):
            return os.path.splitext(os.path.basename(argument))[0] == "hosnn"  # noqa: PTH119, PTH122
        elif argument == "-c":
            return False
    return False


def let_threads_sleep(environment: MutableMapping[str, str], arguments: Sequence[str]) -> None:
    """Set the policy in `environment` if the process is our command and the user says nothing."""
    if is_our_command(arguments) and not any(name in environment for name in SETTINGS):
        environment[POLICY] = "PASSIVE"


let_threads_sleep(os.environ, sys.orig_argv)
