"""Small made-up results with known numbers, and models with known answers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.results.check import Check
from hosnn.results.evaluation import AttackResult, Evaluation, Network, Panel
from hosnn.results.reproduction import Cell, Published, ReproductionResult
from hosnn.results.roles import strength_by_protocol

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


def attack_result(attack: str, predictions: Sequence[int], threat: str = "linf:8/255", **fields: Any) -> AttackResult:
    """An attack's result at eps 8/255, if `fields` say nothing else."""
    return AttackResult(
        attack=attack, threat=threat, predictions=tuple(predictions), **({"eps": 8 / 255, "seconds": 1.5} | fields)
    )


def evaluation(
    protocol: str, samples: int, clean: int, rows: dict[str, int], curve: Sequence[int] = (), seed: int = 0
) -> Evaluation:
    """A result in which `rows` tells how many of the samples each attack leaves correct."""
    labels = tuple(at % CLASSES for at in range(samples))
    threat = "linf:8/255/step" if protocol == "paper" else "linf:8/255"
    eps_rows = tuple(
        attack_result(f"PGD @ {round(eps * 255)}/255", guesses(labels, right), threat=threat, eps=eps)
        for eps, right in zip(EPS, curve, strict=False)
    )
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
        rows=tuple(attack_result(name, guesses(labels, right), threat=threat) for name, right in rows.items()),
        panels=(Panel("eps", eps_rows),) if eps_rows else (),
        seconds=12.0,
        versions={"python": "3.12", "torch": "2.13.0"},
        machine={"processor": "Test processor", "cores": 2, "threads": 1, "gpu": "none", "system": "Linux"},
        strength=strength_by_protocol(protocol),
    )


CHECKS = (
    Check("predictions repeat", "pass", "0 of 200 images differ", 0.0, "The model gives the same answer twice."),
    Check("zero gradients", "pass", "0.5 % of 200 images", 0.005, "Where the gradient is zero, an attack is blind."),
    Check("ties", "warn", "1.5 % of 200 images", 0.015, "Two classes share the top score; more time steps part them."),
    Check("large eps", "fail", "14.0 % left at eps 255/255", 0.14, "At this budget any image can become any other."),
    Check("attack without gradients", "pass", "not applicable", float("nan"), "No image was left to try it on."),
)
METHODS = ("APGD-CE", "APGD-DLR", "SA-PGD")
ESTIMATORS = ("full BPTT", "TSSL-BP", "rectangle 0.5", "straight-through")


def rich() -> Evaluation:
    """A result in which everything there is to tell is there: a cascade of attacks on 200 images, panels of 100."""
    plain = evaluation("standard", 200, 180, {})
    labels = plain.labels

    def row(
        name: str, left: Sequence[bool], kind: str = "white-box", method: str = "", estimator: str = ""
    ) -> AttackResult:
        found = tuple(label if stands else (label + 1) % CLASSES for label, stands in zip(labels, left, strict=False))
        passes = (100 * len(left), 0 if kind == "queries" else 100 * len(left))
        return attack_result(
            name,
            found,
            seconds=3.5,
            kind=kind,
            method=method or name,
            estimator=estimator,
            steps=100,
            forward=passes[0],
            backward=passes[1],
        )

    def first(right: int, count: int = 100) -> list[bool]:
        return [at < right for at in range(count)]

    def every(period: int, count: int = 100) -> list[bool]:
        """Every `period`-th image is lost."""
        return [bool(at % period) for at in range(count)]

    cascade, robust = [], first(180, 200)
    for name, kind, estimator, right in (
        ("APGD-CE", "white-box", "full BPTT", 120),
        ("APGD-DLR", "white-box", "full BPTT", 110),
        ("SA-PGD", "white-box", "", 90),
        ("APGD-CE, found 1", "white-box", "rectangle 0.5", 84),
        ("Square", "queries", "", 84),
        ("APGD-CE from the twin", "transfer", "full BPTT", 83),
    ):
        full = row(name, first(right, 200), kind, name.partition(",")[0], estimator)
        seen = tuple(guess if alive else -1 for guess, alive in zip(full.predictions, robust, strict=True))
        cascade.append(replace(full, predictions=seen))
        robust = first(right, 200)
    eps = tuple(
        replace(row(f"APGD-CE @ {level}/255", first(right)), threat=f"linf:{level}/255", eps=level / 255)
        for level, right in ((2, 80), (4, 72), (8, 55), (16, 30), (32, 12), (64, 3), (255, 0))
    )
    steps = tuple(
        replace(row(f"{method}-{count}", first(right), method=method, estimator="full BPTT"), steps=count)
        for method, lefts in (("PGD", (70, 66, 62, 60)), ("APGD-CE", (66, 60, 57, 55)))
        for count, right in zip((10, 20, 50, 100), lefts, strict=True)
    )
    matrix = tuple(
        row(f"{method}, {estimator}", every(2 + 3 * down + across), method=method, estimator=estimator)
        for across, method in enumerate(METHODS)
        for down, estimator in enumerate(ESTIMATORS)
        if (method, estimator) != ("SA-PGD", "straight-through")
    )
    search = tuple(
        row(f"PGD, {estimator}", first(right), method="PGD", estimator=estimator)
        for estimator, right in zip(ESTIMATORS, (57, 71, 52, 83), strict=True)
    )
    controls = (
        row("noise", first(88), "control"),
        replace(row("APGD-CE at eps 255/255", first(14), "control"), threat="linf:255/255", eps=1.0),
    )
    panels = {"search": search, "eps": eps, "steps": steps, "matrix": matrix, "controls": controls}
    return replace(
        plain,
        cascade=True,
        rows=tuple(cascade),
        panels=tuple(Panel(name, rows) for name, rows in panels.items()),
        checks=CHECKS,
        network=Network(spiking="hosnn", layers=3, adaptive=2, parameters=1_234_567),
        skipped=("transfer from the ANN twin: no twin was given",),
    )


def comparison(
    seeds: Sequence[int] = (0,), sweep: bool = True, samples: int = 1000, columns=COLUMNS
) -> ReproductionResult:
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
            cells.append(
                Cell(
                    neuron=neuron,
                    training=training,
                    experiment=f"run-{place}-{seed}",
                    identity="ef" * 32,
                    seed=seed,
                    epochs=8,
                    training_seconds=600.0,
                    validation=0.88,
                    evaluations=found,
                )
            )
    published = Published(neuron="LIF", training="clean", attack="PGD-7", accuracy=30.54, source="a paper")
    return ReproductionResult(
        title="Made-up 2x2",
        dataset="made-up",
        network="15C5-40C5-300",
        cells=tuple(cells),
        columns=columns,
        published=(published, replace(published, neuron="TA-LIF", training="FGSM 2/255", accuracy=74.91)),
        experiments={cell.experiment: {"type": "Experiment", "name": cell.experiment} for cell in cells},
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
