"""`python -m tests.training.on_ranks RUNS RANKS WHAT ...`: trainings shared by several processes, and what they did."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hosnn.data.augment import InTurn, RandomCrop, RandomFlip
from hosnn.errors import DataError, HosnnError
from hosnn.nn.convnet import ConvNet
from hosnn.progress import Bar, Progress
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD, r_fgsm
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware, Precision, leave
from hosnn.spiking.gradient_rule import bptt
from hosnn.training import pipeline
from hosnn.training.experiment import BatchStatistics, Experiment, Homeostasis, Optimisation
from hosnn.training.objectives import Adversarial, CrossEntropy, VanRossum
from hosnn.training.paired_objectives import SparseGradients
from hosnn.training.pipeline import run
from hosnn.training.probe import Probe
from tests.training.toy import CLEAN, NETWORK, StopAfter, toy_data

SHOWN: list[list[int]] = []


def remembering(images: Tensor, rng: SampleRandom) -> Tensor:
    """An augmentation that only notes which samples it was given."""
    SHOWN.append(rng.index.tolist())
    return images


OPTIM = Optimisation(epochs=7, batch_size=16, lr=0.1)
PLAIN = replace(
    CLEAN,
    name="plain",
    network=replace(NETWORK, dropout=0.0, rule=bptt()),  # TSSL-BP's rule for k multiplies two means over a batch
    optim=OPTIM,
    augmentation=InTurn((RandomCrop(2), RandomFlip())),
)
ROBUST = replace(
    PLAIN,
    name="robust",
    start=PLAIN,
    homeostasis=Homeostasis(),
    objective=Adversarial(r_fgsm(Threat(Linf(0.05))), VanRossum(), craft_in="train"),
)
NORMALISED = Experiment(
    name="normalised",
    data="toy",
    network=ConvNet("4C3-P2-4C3-P2-8-4", (1, 28, 28), (0.5,), (0.25,), steps=3, dropout=0.0, spiking_output=False),
    objective=Adversarial(r_fgsm(Threat(Linf(0.05))), CrossEntropy(), craft_in="train"),
    optim=OPTIM,
)
PENALISED = replace(
    NORMALISED,
    name="penalised",
    objective=SparseGradients(PGD(Threat(Linf(0.05)), 1, 1.0, keep_best=False), CrossEntropy(), craft_in="train"),
    probe=Probe((PGD(Threat(Linf(0.05)), 1, 1.0),), images=4, collapse=1.0),
)
EXPERIMENTS = {
    "penalised": PENALISED,
    "plain": PLAIN,
    "robust": ROBUST,
    "normalised": NORMALISED,
    "each-rank": replace(NORMALISED, name="each-rank", statistics=BatchStatistics.EACH_RANK),
    "in-parts": replace(PLAIN, name="in-parts", optim=replace(OPTIM, accumulate=2)),
    "averaged": replace(PLAIN, name="averaged", optim=replace(OPTIM, average=0.9)),
    "shown": replace(PLAIN, name="shown", augmentation=remembering),
    "uneven": replace(PLAIN, name="uneven", optim=replace(OPTIM, accumulate=3)),
    "float32": replace(PLAIN, name="float32"),
    "long": replace(PLAIN, name="long", optim=replace(OPTIM, epochs=100_000)),
    **dict.fromkeys(("nothing-on-0", "nothing-on-1"), PLAIN),
}


@dataclass
class Watched(Progress):
    """Remembers the losses."""

    losses: list[float] = field(default_factory=list)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        yield _Listening(self.losses)


class _Listening(Bar):
    def __init__(self, losses: list[float]) -> None:
        self._losses = losses

    def advance(self, loss: float | None = None) -> None:
        if loss is not None:
            self._losses.append(loss)
            print("step", flush=True)


@contextmanager
def double() -> Iterator[None]:
    """Float64 throughout, and a calibration that both ranks have blocks of."""
    before, pipeline.CALIBRATION_BATCH = pipeline.CALIBRATION_BATCH, 20
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        pipeline.CALIBRATION_BATCH = before


def fabric_of(ranks: int, precision: Precision = "64-true") -> Fabric:
    return Hardware("cpu", devices=ranks, precision=precision, threads=1).fabric(several=True)


def trained(name: str, runs: Path, fabric: Fabric, stop: int | None = None, resume: bool = False) -> list[float]:
    """The loss of every step."""
    progress = Watched()
    with double() if "float32" not in name else nullcontext():
        run(EXPERIMENTS[name], toy_data(), runs, fabric, StopAfter(stop) if stop else None, progress, resume)
    return progress.losses


def main() -> int:
    runs, ranks, *what = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    found: dict[str, list[float]] = {}
    try:
        fabric = fabric_of(ranks, "32-true" if what[0].startswith("float32") else "64-true")
        for name in what:
            if name == f"nothing-on-{fabric.global_rank}":
                raise DataError("this rank has no data")
            name, _, stop = name.partition("/")
            found[name] = trained(name, runs, fabric, int(stop) if stop else None, resume=True)
    except HosnnError as error:
        print(f"error {error}", file=sys.stderr, flush=True)
        return 2
    content = json.dumps({"losses": found, "shown": SHOWN})
    (runs / f"rank{fabric.global_rank}.json").write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    leave(main())
