"""Commands of seconds of every verb that may run for hours, and what they leave, for tests of what disturbs them.

`python -m tests.reliability.commands VERB ..` is `hosnn VERB ..` with a tiny reproduction and a sweep without Ray.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

import hosnn
from hosnn.cli import sweep as sweep_verb
from hosnn.cli.main import main
from hosnn.data import fashion_mnist_sample
from hosnn.nn.lenet import LeNet
from hosnn.recipes import demo
from hosnn.recipes.reproductions import REPRODUCTIONS, PlannedEvaluation
from hosnn.recipes.resolve import override
from hosnn.signature import calibrate, homeostatic
from hosnn.training.experiment import Experiment
from tests.cluster.without_ray import one_after_the_other

ROOT = Path(__file__).parents[2]

SMALL = ("network.channels=2,3", "network.hidden=8", "optim.epochs=1", "start.optim.epochs=1", "optim.batch_size=128")


def small(recipe: Callable[[], Experiment]) -> Callable[[], Experiment]:
    return wraps(recipe)(lambda: override(recipe(), SMALL))


TINY_DEMO = replace(
    REPRODUCTIONS["demo"],
    grid=tuple(small(recipe) for recipe in demo.GRID),
    plans=(
        PlannedEvaluation("paper", samples=20, panel_samples=10),
        PlannedEvaluation("smoke", samples=20, panel_samples=0),
    ),
)

COMMANDS = {
    "train": f"train demo:homeostatic_fgsm {' '.join(f'--set {setting}' for setting in SMALL)} --resume --runs OUT",
    "calibrate": "calibrate NETWORKS/lif --out OUT/signature.safetensors",
    "evaluate": "evaluate NETWORKS/ta --samples 40 --threads 1 --out OUT",
    "reproduce": "reproduce demo --runs OUT",
    "ablate": "ablate NETWORKS/ta --samples 10 --threads 1 --out OUT",
    "sweep": "sweep tests.cluster.tiny:homeostatic --grid optim.lr=5e-3,1e-2 --protocol smoke --samples 10 --runs OUT",
}
"""By verb; OUT is the folder that it writes to, NETWORKS that of `save_networks`."""

DONE = (0, 3, 4)
"""Exit statuses of a command that ended; 3 and 4 are what the checks say of such small networks."""

TIMES = {"seconds", "cpu_seconds", "training_seconds", "start_seconds"}
"""Entries of JSON files that differ between two runs."""


def arguments(verb: str, networks: Path, out: Path) -> list[str]:
    """The command of a verb.  No folder of a test has spaces in its name."""
    return COMMANDS[verb].replace("NETWORKS", str(networks)).replace("OUT", str(out)).split()


def save_networks(folder: Path) -> Path:
    """A LIF and a TA-LIF network, made without training, in folder/lif and folder/ta."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lif = LeNet(channels=(2, 3), hidden=8).build().eval()
    x, _ = fashion_mnist_sample().train.batch(torch.arange(100))
    for name, network in {"lif": lif, "ta": homeostatic(lif, calibrate(lif, [x]), 0.1)}.items():
        hosnn.save(network, folder / name, {"name": name, "dataset": "fashion-mnist-sample"})
    return folder


def make_small(patch: pytest.MonkeyPatch) -> None:
    """In this process the demo is tiny, and a sweep runs its trials one after the other, without Ray."""
    patch.setitem(REPRODUCTIONS, "demo", TINY_DEMO)
    patch.setattr(sweep_verb, "run_jobs", one_after_the_other)


def started(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.commands", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def complete_only(folder: Path) -> None:
    """Every file that is there can be read as what it is."""
    assert not list(folder.rglob("*.tmp"))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("step-*"):
        assert (path / "model.safetensors").exists() and (path / "config.json").exists()


def contents(folder: Path) -> dict[str, Any]:
    """What a command left, by path, without times, numbers of processes and the folder's own name.

    Pages have times in their text, so only their names count; TensorBoard gets a file each time a run is resumed.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts]
    return {str(path.relative_to(folder)): _content(path, folder) for path in files if path.name != "worker.txt"}


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        return stored(path, folder)
    return path.read_bytes() if path.suffix in (".safetensors", ".jsonl") else None


def stored(path: Path, folder: Path = ROOT) -> Any:
    """The content of a JSON file without the times in it, and without the name of a folder."""
    return _timeless(json.loads(path.read_text().replace(str(folder), "")))


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _timeless(part) for name, part in content.items() if name not in TIMES}
    return [_timeless(part) for part in content] if isinstance(content, list) else content


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        sys.exit(main())
