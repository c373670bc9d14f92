"""`hosnn inspect`."""

import math
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from hosnn.cli.json_output import print_json
from hosnn.cli.options import DataArgument, Folder, ModelArgument, check_measuring, console_for, writable_folder
from hosnn.cli.target import load_target
from hosnn.data import load_dataset
from hosnn.errors import ConfigError
from hosnn.estimators import OnFrames, Through
from hosnn.evaluation.ablations import training_batches
from hosnn.evaluation.requirements import check_weights
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import DEFAULT_THREAT_NAME
from hosnn.files import write_text
from hosnn.inspection.inspect import Disturbance
from hosnn.inspection.inspect import inspect as inspect_model
from hosnn.inspection.recording import Offset
from hosnn.inspection.samples import sample_neurons
from hosnn.nn.neurons import TALIF, hidden_neurons, neurons
from hosnn.report.inspection_html import render_inspection
from hosnn.report.inspection_tables import drift_sentences, energy_sentence, inspection_tables
from hosnn.results.inspection import Inspection
from hosnn.robustness.balls import Events
from hosnn.robustness.events import GreedyEvents
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware, check_seed
from hosnn.signature import calibrate
from hosnn.spiking.gradient_rule import bptt


def inspect(
    model: ModelArgument,
    *,
    threat: str = DEFAULT_THREAT_NAME,
    pgd_steps: int = 10,
    offset: float = 0.1,
    samples: int = 1000,
    compare_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|PATH")] = (),
    seed: int = 0,
    data: DataArgument = None,
    data_folder: Folder = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Look inside a network: spikes, thresholds, errors of the membrane, stability, operations and energy.

    On clean test images, under PGD through full BPTT, and with a constant current of random sign added to every hidden
    neuron.  Errors are measured from the network's signature; for a LIF network it is recorded first, on 1,000 training
    images.  docs/inspect.md says what each number means.

    For example:

    hosnn inspect models/fashion-mnist/homeostatic-fgsm --out inspection.json --html inspection.html

    Args:
        model: a network of hosnn's layers, given as for `hosnn evaluate`.
        threat: of PGD, norm:eps, e.g. linf:8/255; of recordings also events:N/MAXIMUM, of a greedy attack.
        pgd_steps: steps of the attack; 0: no attack.
        offset: the constant current, in units of the resting threshold; 0: none.
        samples: number of test images, a fixed class-balanced choice; all if there are fewer.
        compare_data: further data sets, to see how far they move membranes from the signature.
        seed: seed of the attack's start and of the offsets' signs.
        data: data set; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
        out: write the result to this JSON file.
        html: write a page with tables, figures and an explorer of single neurons to this file.
        hardware: what to run on.
        json_output: print the result as JSON and nothing else.
    """
    if samples < 1 or pgd_steps < 0 or not (math.isfinite(offset) and offset >= 0):
        raise ConfigError(
            f"inspect got samples {samples}, pgd-steps {pgd_steps}, offset {offset}; expected at least 1 image, and no "
            "negative numbers"
        )
    check_measuring(hardware)
    check_seed(seed)
    if out is not None and html is not None and out.resolve() == html.resolve():
        raise ConfigError(f"inspect got {out} for --out and for --html; expected two files")
    for file in (out, html):
        if file is not None and (not file.name or file.is_dir()):
            raise ConfigError(f"inspect got {file}, which is a folder; expected a file, e.g. inspection.json")
    parsed = Threat.parse(threat)
    target = load_target(model, data, data_folder)
    if not isinstance(target.model, nn.Module):
        raise ConfigError(f"inspect got a {type(target.model).__name__}; expected a network with hosnn's LIF layers")
    for file in (out, html):
        if file is not None:
            writable_folder(file.parent)
    disturbances: dict[str, Disturbance] = {}
    if pgd_steps:
        name, attack = _attack(parsed, pgd_steps, frames=target.data.steps is not None)
        disturbances[f"{name}-{pgd_steps} {parsed}"] = Through(bptt(), attack)
    if offset:
        disturbances[f"offset {offset:g}"] = Offset(offset, seed)
    others = {}
    for name in compare_data:
        other = load_dataset(name)
        chosen = other.test.subset(min(samples, len(other.test)))
        others[other.title] = chosen.batch(chosen.blocks(len(chosen))[0])[0]
    device = hardware.fabric().device
    check_weights(target.model)
    network = target.model.to(device)
    signature = None
    if hidden_neurons(network) and not any(isinstance(layer, TALIF) for layer in neurons(network).values()):
        batches = (batch.to(device) for batch in training_batches(target.data))
        signature = calibrate(network, batches)
    images = target.data.test.subset(min(samples, len(target.data.test)))
    result = inspect_model(
        network,
        images,
        disturbances,
        signature=signature,
        others=others,
        names=Names(target.name, target.data.title, target.data.sha256),
        seed=seed,
    )
    if out is not None:
        result.save(out)
    if html is not None:
        neurons_over_time = sample_neurons(network, images, disturbances, signature=signature, seed=seed)
        write_text(html, render_inspection(result, neurons_over_time, target.data.classes))
    if json_output:
        print_json(result.to_json())
        return 0
    console = console_for(json_output)
    _print(result, console)
    for file in (out, html):
        if file is not None:
            console.print(f"written to {file}", markup=False)
    return 0


def _print(result: Inspection, console: Console) -> None:
    console.print(
        f"{result.model}: {result.images:,} images of {result.dataset}, {result.steps} time steps", markup=False
    )
    for content in inspection_tables(result):
        table = Table(title=content.title)
        for heading in content.headings:
            table.add_column(escape(heading), overflow="fold")
        for row in content.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for sentence in (*drift_sentences(result), energy_sentence(result)):
        console.print(sentence, markup=False)


def _attack(threat: Threat, steps: int, frames: bool) -> tuple[str, Attack]:
    """The attack under a threat, and its name: PGD, or for events the greedy one, which needs frames."""
    if not isinstance(threat.ball, Events):
        pgd = PGD(threat, steps)
        return "PGD", OnFrames(pgd) if threat.per_step else pgd
    if not frames:
        raise ConfigError(f"inspect got the threat {threat} for images; expected one to pixels, e.g. linf:8/255")
    return "greedy", GreedyEvents(threat, steps)
