"""A data set of 64 images, the smallest networks, and experiments that train in a fraction of a second."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor

from hosnn.data import Dataset, Split
from hosnn.deadline import Deadline
from hosnn.nn.lenet import LeNet
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import r_fgsm
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware, Precision
from hosnn.training.checkpoint import read_pointer
from hosnn.training.experiment import Experiment, Homeostasis, Optimisation
from hosnn.training.objectives import Adversarial, Clean, VanRossum
from hosnn.training.pipeline import run
from hosnn.training.run_lock import exclusive

NETWORK = LeNet(channels=(2, 3), hidden=8, classes=4)
STEPS_PER_EPOCH = 3
CLEAN = Experiment(
    name="clean",
    data="toy",
    network=NETWORK,
    objective=Clean(VanRossum()),
    optim=Optimisation(epochs=2, batch_size=16, lr=0.1),
)
ROBUST = replace(
    CLEAN,
    name="robust",
    start=CLEAN,
    homeostasis=Homeostasis(adaptation=0.2),
    objective=Adversarial(r_fgsm(Threat(Linf(0.05))), VanRossum(), craft_in="train"),
)
"""Everything random at once: order, dropout (also while crafting) and the attack's start."""


def toy_data(seed: int = 0) -> Dataset:
    """Four classes of bright quadrants under noise; 48 training, 16 validation and 16 test images."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(80) % 4
    images = torch.randint(0, 120, (80, 1, 28, 28), generator=rng)
    for row, label in enumerate(labels.tolist()):
        top, left = 14 * (label // 2), 14 * (label % 2)
        images[row, :, top : top + 14, left : left + 14] += 130
    train, test = (Split.in_order(images[part].byte(), labels[part]) for part in (slice(64), slice(64, 80)))
    classes, source = ("a", "b", "c", "d"), "folder: toy files in /elsewhere"
    return Dataset.from_splits("toy", classes, train, test, validation_size=16, source=source)


def cpu(precision: Precision = "32-true") -> Fabric:
    return Hardware("cpu", precision=precision, threads=1).fabric()


class StopAfter(Deadline):
    """A deadline that comes after some steps rather than some time."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps_left = steps

    @property
    def reached(self) -> bool:
        self.steps_left -= 1
        return self.steps_left < 0


def tensors(run_folder: Path, generation: str = "last") -> dict[str, Tensor]:
    """Weights, k, signature and optimiser state of a run."""
    pointer = read_pointer(run_folder / "checkpoints")
    assert pointer is not None
    folder = run_folder / "checkpoints" / getattr(pointer, generation)
    return load_file(folder / "model.safetensors") | load_file(folder / "training.safetensors")


def same_bits(first: Path, second: Path) -> None:
    """Two runs ended with the same bits: weights and optimiser of both generations, log and position."""
    for generation in ("last", "best"):
        mine, other = tensors(first, generation), tensors(second, generation)
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, other[name]), f"{generation} {name}"
    assert read_pointer(first / "checkpoints") == read_pointer(second / "checkpoints")
    assert log_lines(first) == log_lines(second)
    assert position(first) == position(second)


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def position(folder: Path) -> dict[str, Any]:
    pointer = read_pointer(folder / "checkpoints")
    assert pointer is not None
    content = json.loads((folder / "checkpoints" / pointer.last / "training.json").read_text())
    return {name: value for name, value in content.items() if name not in ("seconds", "cpu_seconds")}


def killed_again_and_again(experiment: Experiment, data: Dataset, runs: Path, fabric: Fabric, kills: int) -> None:
    """Train in children of this process, each killed at a random instant; says how far each came.

    The instant is some saves later and a random part of the time between two saves, whatever the machine's speed.
    """

    def saved() -> str:
        found = [(name, read_pointer(runs / name / "checkpoints")) for name in ("clean", "robust")]
        return " ".join(f"{name} {pointer.last}" for name, pointer in found if pointer)

    instant, between_saves = random.Random(0), 0.1
    for _ in range(kills):
        more, before, last_save = instant.randrange(6), saved(), 0.0
        child = os.fork()
        if child == 0:
            run(experiment, data, runs, fabric, resume=True)
            os._exit(0)
        ended, status = 0, 0
        while more and not ended:
            if (now := saved()) != before:
                if last_save:
                    between_saves = min(between_saves, time.monotonic() - last_save)
                more, before, last_save = more - 1, now, time.monotonic()
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(instant.uniform(0, between_saves))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "finished", saved(), flush=True)


def main() -> None:
    """`python -m tests.training.toy RUNS EPOCHS [KILLS]`: what tests of kills run in a process of its own."""
    runs, epochs, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    experiment = longer(epochs)
    data, fabric = toy_data(), cpu()
    print("ready", flush=True)
    killed_again_and_again(experiment, data, runs, fabric, kills)
    result = run(experiment, data, runs, fabric, resume=True)
    print(f"steps {result.steps}", flush=True)


@contextmanager
def worked_in(folder: Path) -> Iterator[int]:
    """Another process, its number, works in a run folder until it is killed."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=_work_in, args=(folder, held))
    other.start()
    try:
        assert held.wait(60)
        yield other.pid or 0
    finally:
        other.kill()
        other.join()


def _work_in(folder: Path, held: Event) -> None:
    with exclusive(folder):
        held.set()
        time.sleep(60)


def longer(epochs: int) -> Experiment:
    optim = replace(CLEAN.optim, epochs=epochs)
    return replace(ROBUST, optim=optim, start=replace(CLEAN, optim=optim))


if __name__ == "__main__":
    main()
