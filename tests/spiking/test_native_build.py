"""The native kernel as a piece of C: clean under sanitizers, without warnings, and not needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hosnn.spiking.kernels import cpu

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


@pytest.mark.parametrize("kind", ["no library", pytest.param("another", marks=needs_compiler)])
def test_a_library_that_is_not_ours_leaves_layers_to_eager(kind: str, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.so"
    nothing.write_bytes(b"no library")
    if kind == "another":
        other = copied(tmp_path)
        other.write_text(SOURCE.read_text(encoding="utf-8").replace("1000 * sizeof(Neuron)", "999 * sizeof(Neuron)"))
        build(other, nothing, "-DHOSNN_WIDEST=16")
    script = (
        "import torch; from hosnn.spiking.kernels import backend; "
        "from hosnn.nn.neurons import LIF; print(backend.active(torch.device('cpu'))); LIF()(torch.ones(3, 2, 4))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HOSNN_NATIVE": str(nothing)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0 and found.stdout == "eager\n", found.stderr


WIDTHS = """
import hashlib, torch
from hosnn.nn.neurons import TALIF
from hosnn.spiking.kernels import backend
from hosnn.spiking.kernels.kernel_spec import FusionContext
torch.manual_seed(0)
digest = hashlib.sha256()
for shape in ((5, 3, 40, 6, 6), (4, 2, 77), (3, 2, 64, 4, 4)):
    currents = torch.randn(shape).requires_grad_()
    layer = TALIF(torch.rand(shape[0], *shape[2:]), torch.rand(shape[2:]))
    with backend.choose("cpu"):
        for gain in (None, 1.1) if len(shape) == 5 else (None,):
            traces = layer(currents, FusionContext(gain))
            found = torch.autograd.grad(traces.square().sum(), (currents, layer.adaptation))
            spikes = traces.detach()
            digest.update(spikes.contiguous().numpy().tobytes())
            print(*(float(gradient.double().abs().sum()) for gradient in found))
print(digest.hexdigest())
"""


@needs_compiler
def test_registers_of_every_width_give_the_same_traces(tmp_path: Path) -> None:
    found = []
    for width in (16, 32, 64):
        library = tmp_path / f"widest{width}.so"
        build(copied(tmp_path), library, f"-DHOSNN_WIDEST={width}")
        environment = {**os.environ, "HOSNN_NATIVE": str(library), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", WIDTHS], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        *sums, digest = done.stdout.splitlines()
        found.append((digest, [float(number) for line in sums for number in line.split()]))
    for digest, gradients in found[1:]:
        assert digest == found[0][0]
        assert gradients == pytest.approx(found[0][1], rel=1e-5)
