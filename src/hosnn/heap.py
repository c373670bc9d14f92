"""Memory that torch gives back stays with the process for its next tensors, where that is our own command line.

glibc takes the memory of each large tensor from the system and gives it back at once, and the system clears every page
again, at each step of a training.
"""

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence

from hosnn.openmp import is_our_command

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt: free bytes before it gives memory back, bytes from which a block is mapped alone."""

KEPT = 2**31 - 1
"""Bytes; the most that mallopt takes."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let malloc keep what is freed.  Returns whether it does: not where the C library is another than glibc, or the
    user's environment has settings of malloc (MALLOC_..., GLIBC_TUNABLES, LD_PRELOAD)."""
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        return False
    return all(mallopt(parameter, KEPT) == 1 for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD))


def keep_freed_memory_of(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> bool:
    """`keep_freed_memory` if the process is our command; returns whether it is kept."""
    return is_our_command(arguments) and keep_freed_memory(environment)


keep_freed_memory_of(sys.orig_argv)
