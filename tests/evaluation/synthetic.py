"""Small made-up results with known numbers, and models with known answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hosnn.evaluation.comparison import Cell, Comparison, Published
from hosnn.evaluation.result import Evaluation, Row

CLASSES = 10
KINDS = (("LIF", "clean"), ("LIF", "FGSM 2/255"), ("TA-LIF", "clean"), ("TA-LIF", "FGSM 2/255"))
COLUMNS = (
    ("clean", "paper", "clean"),
    ("FGSM (paper)", "paper", "FGSM"),
    ("PGD-7 (paper)", "paper", "PGD-7"),
    ("PGD-40 BPTT, worst of 5 widths", "sweep", "worst"),
)
EPS = (2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, 64 / 255)


def guesses(labels: Sequence[int], right: int) -> tuple[int, ...]:
    """Predictions of which the first `right` are correct."""
    return tuple(label if at < right else (label + 1) % CLASSES for at, label in enumerate(labels))


def evaluation(
    protocol: str, samples: int, clean: int, rows: dict[str, int], curve: Sequence[int] = (), seed: int = 0
) -> Evaluation:
    """A result in which `rows` tells how many of the samples each attack leaves correct."""
    labels = tuple(at % CLASSES for at in range(samples))
    threat = "linf:8/255/step" if protocol == "paper" else "linf:8/255"
    return Evaluation(
        protocol=protocol,
        description=f"attacks of {protocol}",
        threat=threat,
        cascade=protocol == "sweep",
        settings="0" * 64,
        model=f"model-{seed}",
        model_sha256="ab" * 32,
        dataset="made-up",
        dataset_sha256="cd" * 32,
        seed=seed,
        index=tuple(range(samples)),
        labels=labels,
        clean=guesses(labels, clean),
        rows=tuple(Row(name, threat, 8 / 255, guesses(labels, right), 1.5) for name, right in rows.items()),
        curve=tuple(
            Row(f"PGD @ {round(eps * 255)}/255", threat, eps, guesses(labels, right), 1.0)
            for eps, right in zip(EPS, curve, strict=False)
        ),
        seconds=12.0,
        versions={"python": "3.12", "torch": "2.13.0"},
        machine={"processor": "Test processor", "cores": 2, "threads": 1, "gpu": "none", "system": "Linux"},
    )


def comparison(seeds: Sequence[int] = (0,), sweep: bool = True, samples: int = 1000, columns=COLUMNS) -> Comparison:
    """The 2x2 with numbers of which each is known: seed s loses s images more everywhere."""
    cells = []
    for seed in seeds:
        for place, (neuron, training) in enumerate(KINDS):
            clean, fgsm, pgd, worst = (
                (920, 500, 305, 40),
                (880, 760, 683, 690),
                (910, 520, 330, 60),
                (870, 800, 761, 728),
            )[place]
            curve = [clean - 60, clean - 140, pgd, pgd // 2, pgd // 4, 50]
            found = {
                "paper": evaluation("paper", samples, clean - seed, {"FGSM": fgsm - seed, "PGD-7": pgd - seed}, curve)
            }
            if sweep:
                found["sweep"] = evaluation("sweep", samples, clean - seed, {"w=0.1": worst + 9, "w=1": worst - seed})
            cells.append(Cell(neuron, training, f"run-{place}-{seed}", "ef" * 32, seed, 8, 600.0, 0.88, found))
    return Comparison(
        "Made-up 2x2",
        "made-up",
        "15C5-40C5-300",
        tuple(cells),
        columns,
        (
            Published("LIF", "clean", "PGD-7", 30.54, "a paper"),
            Published("TA-LIF", "FGSM 2/255", "PGD-7", 74.91, "a paper"),
        ),
        {cell.experiment: {"type": "Experiment", "name": cell.experiment} for cell in cells},
    )


class Linear(nn.Module):
    """Two classes by the sign of w·x + b: logits (0, w·x + b), whose robustness is known in closed form."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)
