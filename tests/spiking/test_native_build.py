"""The native kernel as a piece of C: clean under sanitizers, without warnings, and not needed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hosnn.nn.neurons import LIF, TALIF
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.spiking.kernels import backend, cpu
from hosnn.spiking.kernels.kernel_spec import FusionContext

ROOT = Path(__file__).parents[2]
SOURCE = Path(cpu.__file__).with_name("neuron.c")
COMPILER = shutil.which("gcc")
FLAGS = ("-O1", "-g", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")


needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no GCC")


def found_by_compiler(name: str) -> str:
    """Path of a library of the compiler; empty if it has none."""
    if COMPILER is None:
        return ""
    path = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return path.stdout.strip() if Path(path.stdout.strip()).is_absolute() else ""


needs_sanitizer = pytest.mark.skipif(not found_by_compiler("libasan.so"), reason="no GCC with its address sanitizer")


def run_kernel_tests(library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    chosen = "not compiled and not registered"  # torch's own compiler is not what is tested here
    tests = [
        *(str(ROOT / "tests" / "spiking" / name) for name in ("test_kernels.py", "test_reused_memory.py")),
        "-q",
        "-x",
        "-k",
        chosen,
        "-p",
        "no:cacheprovider",
        "-s",
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *tests],
        cwd=ROOT,
        env={**os.environ, "HOSNN_NATIVE": str(library), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def copied(folder: Path) -> Path:
    """The kernel's source in another folder."""
    for header in SOURCE.parent.glob("*.h"):
        shutil.copy(header, folder)
    return Path(shutil.copy(SOURCE, folder))


def build(source: Path, library: Path, *flags: str) -> None:
    subprocess.run([str(COMPILER), *FLAGS, *flags, str(source), "-o", str(library), "-lm"], check=True)


def run_sanitized(source: Path) -> subprocess.CompletedProcess[str]:
    """The kernel's tests with a build of `source` under the address and undefined behaviour sanitizers."""
    library = source.with_suffix(".so")
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    build(source, library, *sanitizers)
    preload = f"{found_by_compiler('libasan.so')}:{found_by_compiler('libstdc++.so.6')}"
    return run_kernel_tests(library, LD_PRELOAD=preload, ASAN_OPTIONS="detect_leaks=0")


@pytest.mark.sanitizer
@needs_sanitizer
def test_the_kernels_tests_pass_under_address_and_undefined_behaviour_sanitizers(tmp_path: Path) -> None:
    found = run_sanitized(copied(tmp_path))
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout.splitlines()[-1]


@pytest.mark.sanitizer
@needs_sanitizer
def test_the_sanitizer_sees_a_write_beyond_an_array(tmp_path: Path) -> None:
    """The test above can fail."""
    source = copied(tmp_path)
    lanes = source.with_name("lanes.h")
    right = lanes.read_text(encoding="utf-8")
    assert right.count("(output + to[g], to_u);") == 1
    lanes.write_text(right.replace("(output + to[g], to_u);", "(output + to[g] + 4096, to_u);"))
    found = run_sanitized(source)
    assert found.returncode != 0 and "AddressSanitizer" in found.stdout + found.stderr


@pytest.fixture
def another_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Makes layers use another build of the kernel, for one test."""

    def use(path: Path) -> None:
        monkeypatch.setenv("HOSNN_NATIVE", str(path))
        cpu.library.cache_clear()

    yield use
    monkeypatch.undo()
    cpu.library.cache_clear()


@pytest.mark.parametrize("kind", ["no library", pytest.param("another", marks=needs_compiler)])
def test_a_library_that_is_not_ours_leaves_layers_to_eager(
    kind: str, tmp_path: Path, another_library: Callable[[Path], None]
) -> None:
    nothing = tmp_path / "nothing.so"
    nothing.write_bytes(b"no library")
    if kind == "another":
        other = copied(tmp_path)
        other.write_text(
            SOURCE.read_text(encoding="utf-8").replace("1000 * sizeof(LayerSpec)", "999 * sizeof(LayerSpec)")
        )
        build(other, nothing, "-O0", "-DHOSNN_WIDEST=16")
    another_library(nothing)
    assert backend.active(torch.device("cpu")) == "eager"
    assert LIF()(torch.ones(3, 2, 4)).shape == (3, 2, 4)


def run_of_layers() -> tuple[list[Tensor], list[Tensor]]:
    """Traces and gradients of some layers, in pieces of every size of register."""
    generator = torch.Generator().manual_seed(0)
    traces: list[Tensor] = []
    gradients: list[Tensor] = []
    for shape in ((5, 3, 40, 6, 6), (4, 2, 77), (3, 2, 64, 4, 4)):
        currents = torch.randn(shape, generator=generator).requires_grad_()
        signature, adaptation = (torch.rand(size, generator=generator) for size in ((shape[0], *shape[2:]), shape[2:]))
        for layer in (TALIF(signature, adaptation), ThresholdLIF(signature + 0.4)):
            for gain in (None, 1.1) if len(shape) == 5 else (None,):
                traces.append(layer(currents, FusionContext(gain)))
                gradients += torch.autograd.grad(traces[-1].square().sum(), (currents, *layer.parameters()))
    return traces, gradients


@needs_compiler
def test_registers_of_every_width_give_the_same_traces(tmp_path: Path, another_library: Callable[[Path], None]) -> None:
    """Those that the installed kernel chooses, and narrower ones."""
    with backend.choose("cpu"):
        traces, gradients = run_of_layers()
        for width in (16, 32):
            library = tmp_path / f"widest{width}.so"
            build(copied(tmp_path), library, "-O0", f"-DHOSNN_WIDEST={width}")
            another_library(library)
            others = run_of_layers()
            assert all(map(torch.equal, others[0], traces))
            for got, expected in zip(others[1], gradients, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
