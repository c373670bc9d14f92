"""`hosnn controls`."""

import json
import os
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from torch import Tensor, nn

from hosnn.cli.compare import table
from hosnn.cli.options import Folder, Minutes, Model, Name, console, console_for, deadline, writable_folder
from hosnn.cli.subject import candidate
from hosnn.cli.subject import transfer_sources as models_named
from hosnn.data import Dataset
from hosnn.deadline import stopping
from hosnn.errors import ConfigError
from hosnn.evaluation.ablations import TRAINED, Ablations, ablations, protocol, training_batches
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.generalisation import corruption_accuracy, steps_at_test_time
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import USUAL_THREAT
from hosnn.files import write_json, write_text
from hosnn.nn.layers import SpikingNetwork
from hosnn.progress import TerminalProgress
from hosnn.provenance import machine, versions
from hosnn.report.ablations_markdown import ablations_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
from hosnn.signature.ablations import firing_rates


def ablate(
    model: Model,
    *,
    lif: Folder = None,
    others: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MODEL")] = (),
    threat: str = USUAL_THREAT,
    samples: int = 1000,
    seed: int = 0,
    data: Name = None,
    data_folder: Folder = None,
    out: Folder = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """What of a homeostatic network's robustness is homeostasis?  Attack it, and twins that lack a part of it.

    The twins: adaptation switched off after training (k = 0), thresholds frozen at their mean, a LIF network trained
    the same way, the same at the firing rates of MODEL.  Each is attacked by APGD-CE through full BPTT and by SA-PGD
    through an adaptive surrogate, and compared with MODEL image by image.  Beside it: firing rates, common corruptions,
    other numbers of time steps.  An interrupted run goes on when the same command is given again.

    For example:

    hosnn controls models/fashion-mnist/homeostatic-fgsm --lif models/fashion-mnist/lif-fgsm --out runs/controls

    Args:
        model: a network with adapting thresholds, named as for `hosnn evaluate`.
        lif: a LIF network trained the same way.
        others: further networks to compare with.
        threat: norm:eps, e.g. linf:8/255.
        samples: number of test images, a fixed class-balanced choice.
        seed: seed of random starts and of corruptions.
        data: data set; the one the network was trained on if not given.
        data_folder: where the data set lies, if not in one of its usual places.
        out: folder for controls.json and controls.md; MODEL/evaluations if not given.
        max_time: stop after this many minutes; the same command goes on.
        hardware: where to run.
        json_output: print the result as JSON and nothing else.
    """
    chosen = protocol(Threat.parse(threat)).resized(samples)
    found = candidate(model, data, data_folder)
    if not isinstance(found.model, nn.Module):
        raise ConfigError(f"controls got a {type(found.model).__name__}; expected a network with TA-LIF layers")
    partner = next(iter(models_named((lif,)).values())) if lif is not None else None
    folder = writable_folder(out or found.folder)
    device = hardware.fabric().device
    progress, limit = TerminalProgress(console_for(json_output)), deadline(max_time)
    batches = training_batches(found.data.train)
    made, left_out = ablations(found.model, partner, models_named(others), batches)
    networks = {name: network.to(device) for name, network in made.items()}
    evaluations, partials = [], []
    with stopping(limit):
        for number, (name, network) in enumerate(networks.items()):
            partials.append(journal_path(folder, f"controls-{number}"))
            evaluations.append(
                evaluate(
                    network,
                    found.data,
                    chosen,
                    names=Names(name, found.data.name, found.data.sha256),
                    seed=seed,
                    partial=partials[-1],
                    threads=(hardware.threads or os.cpu_count() or 1) if device.type == "cpu" else 0,
                    progress=progress,
                    deadline=limit,
                )
            )
    result = _controls(found.name, evaluations, networks, batches, found.data, left_out, seed)
    write_json(folder / "controls.json", result.to_json())
    write_text(folder / "controls.md", ablations_markdown(result))
    for partial in partials:
        partial.unlink(missing_ok=True)
    if json_output:
        print(json.dumps(result.to_json()))
        return 0
    console.print(table(result.compared))
    for test in result.compared.tests:
        console.print(f"- {test}", markup=False)
    console.print(f"written to {escape(str(folder / 'ablate.json'))} and .md")
    return 0


def _controls(
    name: str,
    evaluations: list[Evaluation],
    networks: dict[str, nn.Module],
    batches: list[Tensor],
    data: Dataset,
    left_out: tuple[str, ...],
    seed: int,
) -> Ablations:
    samples = evaluations[0].samples
    return Ablations(
        model=name,
        compared=compare_models(evaluations, against=TRAINED),
        rates={name: firing_rates(network, batches) for name, network in networks.items()},
        corruptions={
            name: corruption_accuracy(network, data.test, seed, samples) for name, network in networks.items()
        },
        steps={
            name: steps_at_test_time(network, data.test, samples=samples)
            for name, network in networks.items()
            if isinstance(network, SpikingNetwork)
        },
        left_out=left_out,
        seed=seed,
        versions=versions(),
        machine=machine(),
    )
