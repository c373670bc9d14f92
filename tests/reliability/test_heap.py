"""Memory that is freed stays with the process, in our own command only."""

import os
import platform
import subprocess
import sys

import pytest

from hosnn.heap import keep_freed_memory, keep_freed_memory_of

FAULTS = """
import resource, sys
import torch
from hosnn.heap import keep_freed_memory_of

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory_of(sys.argv[1:])

def four_tensors():
    for _ in range(4):
        torch.ones(1 << 23)

four_tensors()
before = faults()
four_tensors()
print(faults() - before)
"""
PAGES_OF_ALL = 4 * (1 << 23) * 4 // os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("arguments", "kept"), [(["python", "-m", "hosnn"], True), (["python", "own.py"], False)])
def test_a_large_tensor_reuses_the_pages_of_the_last_one(arguments: list[str], kept: bool) -> None:
    settings = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    faults = int(done.stdout)
    assert (faults < PAGES_OF_ALL // 20) is kept


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_the_users_settings_of_malloc_hold(name: str) -> None:
    assert not keep_freed_memory({name: "1"})


def test_a_program_of_the_users_keeps_its_malloc() -> None:
    assert not keep_freed_memory_of(["python", "train.py"], {})
