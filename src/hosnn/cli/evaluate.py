"""`hosnn evaluate`."""

import json
import re
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from hosnn.cli.options import (
    Folder,
    Minutes,
    Model,
    Name,
    console,
    console_for,
    data_for,
    deadline,
    load_model,
    writable_folder,
)
from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import Subject
from hosnn.evaluation.evaluate import evaluate as run_protocol
from hosnn.evaluation.protocols import protocol as protocol_named
from hosnn.evaluation.report import render_evaluation
from hosnn.evaluation.result import Evaluation, write_text
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
from hosnn.training.progress import TerminalProgress


def evaluate(
    model: Model,
    *,
    protocol: str = "smoke",
    threat: str = "linf:8/255",
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    seed: int = 0,
    data: Name = None,
    data_folder: Folder = None,
    out: Folder = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Attack a trained network under a protocol; write JSON and an HTML page.

    Protocols: smoke (ours, a first look), paper (the HoSNN authors' attacks, for comparison with published numbers
    only), sweep (PGD-40, 2 restarts, full BPTT, five surrogate widths).

    For example:

    hosnn evaluate runs/demo/demo-homeostatic-fgsm

    hosnn evaluate runs/fashion-mnist-lif-fgsm --protocol sweep --samples 200 --threat linf:4/255

    Args:
        model: a run folder or checkpoint folder.
        protocol: smoke, paper or sweep.
        threat: norm:eps with norm linf, l2 or l1, e.g. linf:8/255; /step after it perturbs every time step.
        samples: number of test images, a fixed class-balanced choice; the protocol's own number if not given.
        seed: seed of random starts.
        data: data set; the one the network was trained on if not given.
        data_folder: where the data set lies, if not in one of its usual places.
        out: folder for PROTOCOL.json and PROTOCOL.html (options other than the protocol's own show in the name);
            MODEL/evaluations if not given.
        max_time: stop after this many minutes; the same command goes on.
        hardware: where to run.
        json_output: print the result as JSON and nothing else.
    """
    chosen = protocol_named(protocol, Threat.parse(threat))
    if samples is not None:
        if samples < 1:
            raise ConfigError(f"--samples got {samples}; expected at least 1 image")
        chosen = chosen.resized(samples)
    loaded = load_model(model)
    dataset = data_for(loaded.network, loaded.config, data, data_folder)
    if samples is not None and samples > len(dataset.test):
        raise ConfigError(f"--samples got {samples}; {dataset.name} has {len(dataset.test)} test images")
    if hardware.precision != "32-true":
        raise ConfigError(f"--precision got {hardware.precision!r}; robustness is measured in 32-true")
    folder = writable_folder(out or (model if model.exists() else Path("runs") / model.name) / "evaluations")
    # Only the protocol as it stands takes the plain name, which `hosnn reproduce` looks for.
    changed = (("", threat != "linf:8/255", threat), ("n", samples is not None, samples), ("seed", seed != 0, seed))
    shown = [re.sub(r"[:/]", "_", f"{word}{value}") for word, differs, value in changed if differs]
    stem = "-".join([protocol, *shown])
    stem += "" if dataset.name == loaded.config["provenance"].get("dataset") else f"-{dataset.name}"
    fabric = hardware.fabric()
    result = run_protocol(
        loaded.network.to(fabric.device),
        dataset,
        chosen,
        subject=Subject(str(loaded.config["provenance"].get("name", model.name)), dataset.name, dataset.sha256),
        seed=seed,
        partial=folder / f"{stem}.partial.jsonl",
        progress=TerminalProgress(console_for(json_output)),
        deadline=deadline(max_time),
    )
    result.save(folder / f"{stem}.json")
    (folder / f"{stem}.partial.jsonl").unlink(missing_ok=True)
    write_text(folder / f"{stem}.html", render_evaluation(result))
    if json_output:
        print(json.dumps(result.to_json()))
        return 0
    console.print(_table(result))
    console.print(f"written to {folder / stem}.json and .html")
    return 0


def _table(result: Evaluation) -> Table:
    table = Table(title=f"{result.model}: {result.samples:,} images of {result.dataset}, {result.threat}")
    for heading in ("attack", "accuracy", "95 % interval", "seconds"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    low, high = result.interval()
    table.add_row("none", f"{result.clean_accuracy:.2%}", f"{low:.1%} .. {high:.1%}", "")
    for row in result.rows:
        low, high = result.interval(row.attack)
        table.add_row(
            row.attack, f"{result.accuracy(row.attack):.2%}", f"{low:.1%} .. {high:.1%}", f"{row.seconds:.0f}"
        )
    table.add_row("[bold]worst case per sample", f"[bold]{result.worst_case:.2%}", "", f"{result.seconds:.0f}")
    return table
