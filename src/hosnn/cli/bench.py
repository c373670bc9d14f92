"""`hosnn bench`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from hosnn.benchmark.calibration import SignatureCase
from hosnn.benchmark.evaluation import EvaluationCase
from hosnn.benchmark.layers import LAYER_SHAPES, LayerCase
from hosnn.benchmark.networks import NetworkCase, Precision, RobustNetworkCase, Workload
from hosnn.benchmark.peers import peer_versions
from hosnn.benchmark.report import HEADINGS, BenchmarkResult, benchmark_markdown, table_cells, timing_figure
from hosnn.benchmark.timing import Case, Timing, measure
from hosnn.cli.json_output import print_json
from hosnn.cli.options import Folder, console_for, writable_folder
from hosnn.errors import ConfigError
from hosnn.files import write_json, write_text
from hosnn.nn.convnet import ConvNet
from hosnn.nn.lenet import lenet_15c5_40c5_300, lenet_32c5_64c5_1024
from hosnn.provenance import machine, versions
from hosnn.recipes import cifar10_robust, fashion_mnist_robust
from hosnn.report.plotting import svg
from hosnn.spiking.gradient_rule import GradientRule, bptt
from hosnn.training.experiment import Experiment

Work = Literal["layer", "training", "attack", "full-bptt", "robust", "inference", "signature", "evaluation"]

ROBUST = (fashion_mnist_robust.start, fashion_mnist_robust.start_32, cifar10_robust.start)
"""Recipes whose training steps are timed."""

EVALUATION_ROUNDS = 3
"""An evaluation takes long, so a short disturbance changes its time little."""


def bench(
    *,
    only: Annotated[tuple[Work, ...], tyro.conf.arg(metavar="WORK")] = (),
    contestants: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (),
    quick: bool = False,
    rounds: int = 15,
    accelerator: Literal["cpu", "cuda"] = "cpu",
    out: Folder = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Measure the speed of layers, training, attacks and evaluations beside eager PyTorch, torch.compile and peers.

    Every implementation of the same work (a contestant) is timed in turn, round by round, on one thread unless its name
    says otherwise; times are ratios to ours, medians over rounds (on a GPU milliseconds too).  Lower bounds: for a
    layer, a copy of the bytes it must move; for a network, its convolutions and matrix products alone.  SpikingJelly,
    snnTorch, Norse and sinabs take part if they are installed (bench/requirements-speed.txt).  Run nothing else on the
    machine at the same time.

    For example:

    hosnn bench --quick

    hosnn bench --only layer inference --out runs/bench

    hosnn bench --only training --contestants "2 threads" "per-step"

    Args:
        only: kinds of work to measure: layer; training and attack (with TSSL-BP); full-bptt (the same with full BPTT);
            robust (a training step of the networks of robust recipes); inference; signature; evaluation; all if not
            given.
        contestants: time only contestants whose names contain one of these texts, besides hosnn; all if not given.
        quick: about a minute: a small layer and a small network, 3 rounds, nothing compiled, no peak memory.
        rounds: rounds, in each of which every contestant is timed once; at most 3 for evaluations.
        accelerator: cpu or cuda.
        out: folder for bench.json, bench.md and bench.svg; nothing is written if not given.
        json_output: print the result as JSON and nothing else.
    """
    if rounds < 1:
        raise ConfigError(f"rounds got {rounds}; expected at least 1")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "accelerator got 'cuda' but there is no CUDA device here; `hosnn doctor` lists the devices that are"
        )
    folder = None if out is None else writable_folder(out)
    work = cases(only, quick, accelerator)
    known_names = list(dict.fromkeys(name for case in work for name in case.contestants()))
    for part in contestants:
        if not any(part.lower() in name.lower() for name in known_names):
            raise ConfigError(f"contestants got {part!r}; expected parts of: {'; '.join(known_names)}")
    return run(work, min(rounds, 3) if quick else rounds, not quick, folder, json_output, contestants)


def cases(only: Sequence[Work], quick: bool, device: str) -> list[Case]:
    """The cases of the chosen kinds of work, all kinds if none are chosen.  Raises ConfigError if there is no case."""
    blueprint, batch = (lenet_15c5_40c5_300(), 16) if quick else (lenet_32c5_64c5_1024(), 64)
    precisions: tuple[Precision, ...] = ("float32",) if quick else ("float32", "bfloat16")

    def network(
        workload: Workload, precision: Precision = "float32", rule: GradientRule = blueprint.rule
    ) -> NetworkCase:
        return NetworkCase(workload, batch, precision, device, not quick, replace(blueprint, rule=rule))

    def robust(recipe: Experiment) -> RobustNetworkCase:
        assert isinstance(recipe.network, ConvNet)
        return RobustNetworkCase("FGSM training step", recipe.optim.batch_size, device=device, blueprint=recipe.network)

    by_work: dict[Work, list[Case]] = {
        "layer": [LayerCase(shape, device, not quick) for shape in (LAYER_SHAPES[:1] if quick else LAYER_SHAPES)],
        "training": [network("FGSM training step", precision) for precision in precisions],
        "attack": [network("PGD-10", precision) for precision in precisions],
        "full-bptt": [] if quick else [network("FGSM training step", rule=bptt()), network("PGD-10", rule=bptt())],
        "robust": [] if quick else [robust(recipe()) for recipe in ROBUST],
        "inference": [network("inference")],
        "signature": [] if quick else [SignatureCase(device=device)],
        "evaluation": [] if quick else [EvaluationCase(device=device)],
    }
    chosen_cases = [case for work, of_work in by_work.items() if not only or work in only for case in of_work]
    if not chosen_cases:
        raise ConfigError(
            "--quick measures no full-bptt, robust, signature or evaluation, which take longer; leave out --quick"
        )
    return chosen_cases


def run(
    work: Sequence[Case],
    rounds: int,
    memory: bool,
    folder: Path | None,
    json_output: bool,
    contestants: Sequence[str] = (),
) -> int:
    """Measure case by case; print each, and write all results so far after each."""
    console = console_for(json_output)
    rows: list[Timing] = []
    for case in work:
        case_rounds = min(rounds, EVALUATION_ROUNDS) if isinstance(case, EvaluationCase) else rounds
        with console.status(case.title):
            rows += measure(case, case_rounds, memory, names=contestants)
        result = BenchmarkResult(
            rows=tuple(rows), rounds=rounds, versions=versions(), peers=peer_versions(), machine=machine()
        )
        _show(console, [row for row in rows if row.case == case.title])
        if folder is not None:
            write_json(folder / "bench.json", result.to_json())
            write_text(folder / "bench.md", benchmark_markdown(result))
            write_text(folder / "bench.svg", svg(timing_figure(result)).decode())
    if json_output:
        print_json(result.to_json())
    elif folder is not None:
        console.print(f"written to {folder / 'bench.json'}, .md and .svg", markup=False)
    return 0


def _show(console: Console, rows: Sequence[Timing]) -> None:
    table = Table(title=rows[0].case)
    for number, heading in enumerate(HEADINGS[1:]):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*table_cells(row)[1:])
    console.print(table)
