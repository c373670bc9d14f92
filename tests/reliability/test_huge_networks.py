"""A description of a network that would need gigabytes costs none: it is compared with the weights' header first."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hosnn.training.configuration import network_from
from tests.reliability.stored import KINDS

BYTES = 300e6

LOAD = """
import sys
from pathlib import Path
from hosnn import HosnnError, load

def peak():
    # Not resource.getrusage: its peak includes that of the process this one was forked from.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

load(sys.argv[1])
before = peak()
try:
    load(sys.argv[2])
except HosnnError as error:
    print(peak() - before, error)
"""


def refused(whole: Path, damaged: Path) -> tuple[int, str]:
    """How much memory it costs to refuse a network, beyond that of loading a small one, and what is said."""
    command = [sys.executable, "-c", LOAD, str(whole), str(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    size, _, error = done.stdout.partition(" ")
    return int(size), error


def described(folder: Path, change: dict[str, Any]) -> Path:
    """A checkpoint with another description of its network."""
    path = KINDS["config"].write(folder)
    config = json.loads(path.read_text())
    config["network"] |= change
    path.write_text(json.dumps(config))
    return path.parent


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    "change",
    [{"hidden": 1_000_000}, {"hidden": 10**9}, {"channels": [30_000, 30_000]}, {"classes": 10**9}],
    ids=str,
)
def test_a_huge_network_is_refused_before_it_is_built(change: dict[str, Any], tmp_path: Path) -> None:
    size, error = refused(KINDS["config"].write(tmp_path / "whole").parent, described(tmp_path / "damaged", change))
    assert error, "it was loaded"
    assert size < BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_weights_that_claim_to_be_huge_are_refused_before_the_network_is_built(tmp_path: Path) -> None:
    """Description and header agree, and the file ends after a few kilobytes."""
    folder = described(tmp_path / "damaged", {"hidden": 30_000_000})
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    with torch.device("meta"):
        claimed = network_from(json.loads((folder / "config.json").read_text())["network"]).state_dict()
    for name, tensor in claimed.items():
        header[name]["shape"] = list(tensor.shape)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    size, error = refused(KINDS["config"].write(tmp_path / "whole").parent, folder)
    assert "cannot read" in error
    assert size < BYTES
