"""`hosnn ablate`."""

import os
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from torch import Tensor, nn

from hosnn.cli.compare import comparison_table
from hosnn.cli.json_output import print_json
from hosnn.cli.options import (
    DataArgument,
    Folder,
    Minutes,
    ModelArgument,
    check_measuring,
    console,
    console_for,
    deadline_after,
)
from hosnn.cli.target import load_networks, load_target, results_folder
from hosnn.data import Dataset
from hosnn.deadline import stopping
from hosnn.errors import ConfigError
from hosnn.evaluation.ablations import TRAINED, Ablations, ablated_models, ablation_protocol, training_batches
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.generalisation import corruption_accuracy, steps_at_test_time
from hosnn.evaluation.journal import journal_path, remove_journals
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import DEFAULT_THREAT_NAME, save_ablations, with_samples
from hosnn.files import write_text
from hosnn.nn.layers import MeanReadout, SpikingNetwork
from hosnn.progress import TerminalProgress
from hosnn.provenance import machine, versions
from hosnn.report.ablations_markdown import ablations_markdown
from hosnn.results.comparison import compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware
from hosnn.signature.ablations import firing_rates


def ablate(
    model: ModelArgument,
    *,
    lif: Folder = None,
    others: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MODEL")] = (),
    threat: str = DEFAULT_THREAT_NAME,
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    seed: int = 0,
    data: DataArgument = None,
    data_folder: Folder = None,
    out: Folder = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Measure how much of a network's robustness comes from homeostasis: attack it and copies without parts of it.

    The copies: adaptation switched off after training (k = 0), and thresholds frozen at their mean; with --lif also a
    LIF network trained the same way, and the same at the firing rates of MODEL.  Each is attacked by APGD-CE through
    full BPTT and by SA-PGD through an adaptive surrogate, and compared with MODEL image by image.  Also measured:
    firing rates, accuracy under common corruptions and at other numbers of time steps.  An interrupted run resumes
    when the same command is given again.

    For example:

    hosnn ablate models/fashion-mnist/homeostatic-fgsm --lif models/fashion-mnist/lif-fgsm --out runs/ablations

    hosnn ablate runs/demo/demo-homeostatic-fgsm --samples 100 --max-time 10

    Args:
        model: a network with adapting thresholds, given as for `hosnn evaluate`.
        lif: a LIF network trained the same way.
        others: further networks to compare with.
        threat: norm:eps, e.g. linf:8/255.
        samples: number of test images, a fixed class-balanced choice; 1,000, or all if there are fewer, if not given.
        seed: seed of random starts and of corruptions.
        data: data set; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
        out: folder for ablations.json and ablations.md; MODEL/evaluations if not given.
        max_time: stop after this many minutes; the same command resumes.
        hardware: what to run on.
        json_output: print the result as JSON and nothing else.
    """
    check_measuring(hardware)
    protocol = ablation_protocol(Threat.parse(threat))
    target = load_target(model, data, data_folder)
    protocol = with_samples(protocol, target.data, samples)
    if not isinstance(target.model, nn.Module):
        raise ConfigError(f"ablate got a {type(target.model).__name__}; expected a network with TA-LIF layers")
    lif_network = next(iter(load_networks((lif,)).values())) if lif is not None else None
    folder = results_folder(target, out)
    device = hardware.fabric().device
    progress, deadline = TerminalProgress(console_for(json_output)), deadline_after(max_time)
    batches = training_batches(target.data)
    variants, left_out = ablated_models(target.model, lif_network, load_networks(others), batches)
    networks = {name: network.to(device) for name, network in variants.items()}
    evaluations, journals = [], []
    with stopping(deadline):
        for number, (name, network) in enumerate(networks.items()):
            journals.append(journal_path(folder, f"ablations-{number}"))
            evaluations.append(
                evaluate(
                    network,
                    target.data,
                    protocol,
                    names=Names(name, target.data.title, target.data.sha256),
                    seed=seed,
                    journal=journals[-1],
                    threads=(hardware.threads or os.cpu_count() or 1) if device.type == "cpu" else 0,
                    progress=progress,
                    deadline=deadline,
                )
            )
    result = _measured(target.name, evaluations, networks, batches, target.data, left_out, seed)
    save_ablations(result, folder / "ablations.json")
    write_text(folder / "ablations.md", ablations_markdown(result))
    for journal in journals:
        remove_journals(journal)
    if json_output:
        print_json(result.to_json())
        return 0
    console.print(comparison_table(result.compared))
    for test in result.compared.tests:
        console.print(f"- {test}", markup=False)
    console.print(f"written to {escape(str(folder / 'ablations'))}.json and .md")
    return 0


def _measured(
    name: str,
    evaluations: list[Evaluation],
    networks: dict[str, nn.Module],
    batches: list[Tensor],
    data: Dataset,
    left_out: tuple[str, ...],
    seed: int,
) -> Ablations:
    """The evaluations compared, with firing rates, corruptions and numbers of time steps measured."""
    samples = evaluations[0].samples
    frames = data.steps is not None
    if frames:
        left_out = (*left_out, "corruptions and other numbers of time steps: the data are recordings")
    return Ablations(
        model=name,
        compared=compare_models(evaluations, against=TRAINED),
        rates={name: firing_rates(network, batches) for name, network in networks.items()},
        corruptions={
            name: corruption_accuracy(network, data.test, seed, samples)
            for name, network in networks.items()
            if not frames
        },
        steps={
            name: steps_at_test_time(network, data.test, samples=samples)
            for name, network in networks.items()
            if not frames and isinstance(network, SpikingNetwork) and isinstance(network.readout, MeanReadout)
        },
        left_out=left_out,
        seed=seed,
        versions=versions(),
        machine=machine(),
    )
