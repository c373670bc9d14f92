"""`hosnn inspect`."""

import json
import math
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from hosnn.cli.options import DataArgument, Folder, ModelArgument, console_for, writable_folder
from hosnn.cli.target import load_target
from hosnn.data import load_dataset
from hosnn.errors import ConfigError
from hosnn.estimators import Through
from hosnn.evaluation.ablations import training_batches
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import DEFAULT_THREAT_NAME
from hosnn.inspection.inspect import Disturbance
from hosnn.inspection.inspect import inspect as inspect_model
from hosnn.inspection.recording import Offset
from hosnn.nn.neurons import TALIF, hidden_neurons, neurons
from hosnn.report.inspection_markdown import first_and_last
from hosnn.report.phrases import NO_VALUE
from hosnn.results.inspection import Energy, Inspection
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
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
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Look inside a network: spikes, thresholds, errors of the membrane, stability, operations and energy.

    On clean test images, under PGD through full BPTT, and with a constant current of random sign added to every hidden
    neuron.  Errors are measured from the network's signature; for a LIF network it is recorded first, on 1,000 training
    images.  docs/inspect.md says what each number means.

    For example:

    hosnn inspect models/fashion-mnist/homeostatic-fgsm --out inspection.json

    Args:
        model: a network of hosnn's layers, given as for `hosnn evaluate`.
        threat: of PGD, norm:eps, e.g. linf:8/255.
        pgd_steps: steps of PGD; 0: no attack.
        offset: the constant current, in units of the resting threshold; 0: none.
        samples: number of test images, a fixed class-balanced choice; all if there are fewer.
        compare_data: further data sets, to see how far they move membranes from the signature.
        seed: seed of the attack's start and of the offsets' signs.
        data: data set; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
        out: write the result to this JSON file.
        hardware: what to run on.
        json_output: print the result as JSON and nothing else.
    """
    if samples < 1 or pgd_steps < 0 or not (math.isfinite(offset) and offset >= 0):
        raise ConfigError(
            f"inspect got samples {samples}, pgd-steps {pgd_steps}, offset {offset}; expected at least 1 image, and no "
            "negative numbers"
        )
    parsed = Threat.parse(threat)
    target = load_target(model, data, data_folder)
    if not isinstance(target.model, nn.Module):
        raise ConfigError(f"inspect got a {type(target.model).__name__}; expected a network with hosnn's LIF layers")
    if out is not None:
        writable_folder(out.parent)
    disturbances: dict[str, Disturbance] = {}
    if pgd_steps:
        disturbances[f"PGD-{pgd_steps} {parsed}"] = Through(bptt(), PGD(parsed, pgd_steps))
    if offset:
        disturbances[f"offset {offset:g}"] = Offset(offset, seed)
    others = {}
    for name in compare_data:
        other = load_dataset(name, data_folder)
        chosen = other.test.subset(min(samples, len(other.test)))
        others[other.title] = chosen.batch(chosen.blocks(len(chosen))[0])[0]
    device = hardware.fabric().device
    network = target.model.to(device)
    signature = None
    if hidden_neurons(network) and not any(isinstance(layer, TALIF) for layer in neurons(network).values()):
        batches = (batch.to(device) for batch in training_batches(target.data.train))
        signature = calibrate(network, batches)
    result = inspect_model(
        network,
        target.data.test.subset(min(samples, len(target.data.test))),
        disturbances,
        signature=signature,
        others=others,
        names=Names(target.name, target.data.title, target.data.sha256),
        seed=seed,
    )
    if out is not None:
        result.save(out)
    if json_output:
        print(json.dumps(result.to_json()))
        return 0
    console = console_for(json_output)
    _print(result, console)
    if out is not None:
        console.print(f"written to {out}")
    return 0


def _print(result: Inspection, console: Console) -> None:
    console.print(f"{result.model}: {result.images:,} images of {result.dataset}, {result.steps} time steps")
    console.print(_activity(result))
    console.print(_errors(result))
    if result.adaptive:
        console.print(_stability(result))
    if result.drift:
        console.print(_drift(result))
    if result.energy is None:
        console.print(result.energy_missing, markup=False)
    else:
        console.print(_energy(result.energy))
        console.print(_energy_sentence(result.energy))


def _activity(result: Inspection) -> Table:
    table = _table("activity", "condition", "accuracy", "layer", "rate", "silent", "saturated", "mean threshold")
    for condition in result.conditions:
        for number, layer in enumerate(condition.layers):
            first = number == 0
            table.add_row(
                condition.name if first else "",
                f"{100 * condition.accuracy:.1f} %" if first else "",
                layer.layer,
                f"{layer.rate:.3f}",
                f"{100 * layer.silent:.1f} %",
                f"{100 * layer.saturated:.1f} %",
                f"{layer.threshold[0]:.2f} → {layer.threshold[-1]:.2f}",
            )
    return table


def _errors(result: Inspection) -> Table:
    """Of the network and with k = 0 in all layers; what a layer removes is measured against itself alone with k = 0."""
    table = _table(
        "mean square error of the membrane, first → last time step, and the share that a layer's feedback removes",
        *("condition", "layer", "error", "network", "all k = 0", "removed"),
    )
    for condition in result.conditions:
        for layer in condition.layers:
            for kind, name in (("from_signature", "u - u*"), ("from_clean", "u - u clean")):
                if getattr(layer.error, kind):
                    removed = layer.removed(kind)
                    share = NO_VALUE if math.isnan(removed) else f"{100 * removed:+.0f} %"
                    errors = (first_and_last(e, kind) for e in (layer.error, layer.error_without_adaptation))
                    table.add_row(condition.name, layer.layer, name, *errors, share)
    return table


def _stability(result: Inspection) -> Table:
    table = _table(
        "learned k, and neurons inside the stability interval, at a frozen and at a responding rate",
        *("layer", "neurons", "k", "frozen", "responding", "open loop", "silent"),
    )
    for layer in result.adaptive:
        span = f"{layer.lowest_adaptation:.2f}-{layer.highest_adaptation:.2f}, mean {layer.mean_adaptation:.2f}"
        frozen, responding = layer.frozen_rate, layer.responding_rate
        shares = (frozen.inside, responding.inside, frozen.open_loop, frozen.silent)
        table.add_row(
            layer.layer, f"{layer.neurons:,}", span, *(f"{100 * share / layer.neurons:.1f} %" for share in shares)
        )
    return table


def _drift(result: Inspection) -> Table:
    table = _table(
        "mean membranes against the signature, mean square", "images of", "layer", "drift", "by chance alone"
    )
    for drift in result.drift:
        for name, value in drift.mean_square.items():
            table.add_row(f"{drift.images:,} {drift.dataset}", name, f"{value:.3g}", f"{drift.by_chance[name]:.2g}")
    return table


def _energy(energy: Energy) -> Table:
    table = _table("per image, NeuroBench's names", "metric", "value")
    for name, value in energy.neurobench.items():
        table.add_row(name, f"{value:.4f}" if name == "ActivationSparsity" else f"{value:,.0f}")
    for name, value in energy.picojoule.items():
        table.add_row(f"energy, {name}", f"{value / 1e6:.3f} µJ")
    table.add_row("signature and k, bytes", f"{energy.signature_bytes:,}")
    return table


def _energy_sentence(energy: Energy) -> str:
    sentence = f"{energy.rate:.3f} spikes per neuron and time step"
    if math.isnan(energy.break_even_rate):
        return sentence
    side = "above" if energy.rate > energy.break_even_rate else "below"
    return f"{sentence}, {side} the {energy.break_even_rate} at which a quantised ANN needs as much energy"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
