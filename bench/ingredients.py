"""What each part of `standard`'s first attack is worth, at about equal passes, on several networks.

    python bench/ingredients.py MODEL.. --out docs/results/attacks/ingredients.json

A MODEL is named as for `hosnn evaluate`; of a model of your own with its data and threat, as in
`bench/foreign.py:spikingjelly=fashion-mnist@linf:8/255`.  Images are of the validation split, which no published result
uses.  A network without hosnn's spiking layers is attacked through its own gradient.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from hosnn.cli.target import load_target
from hosnn.estimators import AdaptiveSharpness, Through, WithMembraneMargin, has_spiking_layers
from hosnn.files import write_json, write_text
from hosnn.protocols.attacks import near_starts
from hosnn.provenance import machine, versions
from hosnn.rng import SampleRandom
from hosnn.robustness.focused import FocusedSAPGD
from hosnn.robustness.losses import lost, margin
from hosnn.robustness.model import Attack, count_passes, scores
from hosnn.robustness.pgd import on_sphere
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.threats import Threat

FIRST, NEAR, RUNS, SHARE = 60, 200, 4, 0.25


@dataclass(frozen=True)
class Options:
    """Compare the parts of the attack."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path = Path("docs/results/attacks/ingredients.json")
    samples: int = 100
    data_folder: Path | None = None
    threads: int = 1


def variants(threat: Threat) -> dict[str, Attack]:
    """Attacks that each add one part to the one before, with at most as many steps per image on average."""
    steps = FIRST + round(RUNS * NEAR * SHARE)
    mixed = near_starts(RUNS)
    return {
        f"SA-PGD, {steps} steps on all images": SAPGD(threat, steps, loss=margin),
        "nearest images, random starts": FocusedSAPGD(threat, FIRST, NEAR, SHARE, (on_sphere,) * RUNS),
        "nearest images, from the best point": FocusedSAPGD(threat, FIRST, NEAR, SHARE, (None,) * RUNS),
        "nearest images, mixed starts": FocusedSAPGD(threat, FIRST, NEAR, SHARE, mixed),
        "mixed starts, membrane in the loss": WithMembraneMargin(FocusedSAPGD(threat, FIRST, NEAR, SHARE, mixed)),
    }


def measure(text: str, options: Options) -> dict[str, Any]:
    source, _, settings = text.partition("=")
    data_name, _, threat_text = settings.partition("@")
    target = load_target(Path(source), data_name or None, options.data_folder)
    threat = Threat.parse(threat_text or "linf:8/255")
    split = target.data.validation.subset(options.samples)
    x, y = split.batch(torch.arange(len(split)))
    estimated = has_spiking_layers(target.model)
    rows = {}
    for name, attack in variants(threat).items():
        started = time.process_time()
        made = Through(AdaptiveSharpness(), attack) if estimated else attack
        output = scores(target.model, x)
        standing = (~lost(output, y)).nonzero()[:, 0]
        with count_passes() as passes:
            x_adv = made(target.model, x[standing], y[standing], SampleRandom(0, split.index[standing]))
        output = scores(target.model, x_adv)
        left = int((~lost(output, y[standing])).sum())
        total = passes.forward + passes.backward
        rows[name] = {"left": left, "passes": total, "cpu_seconds": time.process_time() - started}
        print(f"{target.name}: {name}: {left} of {len(y)} left, {total:,} passes", flush=True)
    return {"network": target.name, "data": target.data.title, "threat": str(threat), "attacks": rows}


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    measured = [measure(text, options) for text in options.models]
    if options.out.exists():  # rows of other networks, for which --data-folder may have been another one
        fresh = {row["network"] for row in measured}
        before = json.loads(options.out.read_text(encoding="utf-8"))["networks"]
        measured = [row for row in before if row["network"] not in fresh] + measured
    document = {"samples": options.samples, "split": "validation", "versions": versions(), "machine": machine()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document | {"networks": measured})
    names = list(measured[0]["attacks"])
    lines = [
        f"Images left of {options.samples} of the validation split, ties lost; in brackets thousands of passes.",
        "",
    ]
    lines += [f"| network | threat | {' | '.join(names)} |", f"| --- | --- |{' ---: |' * len(names)}"]
    for row in measured:
        cells = [f"{part['left']} ({part['passes'] / 1000:.0f})" for part in row["attacks"].values()]
        lines.append(f"| {row['network']} | {row['threat']} | {' | '.join(cells)} |")
    write_text(options.out.with_suffix(".md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
