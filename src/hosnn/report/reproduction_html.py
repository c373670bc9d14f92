"""The report of a reproduction: one self-contained HTML page.  A pure function of the result."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.report import example_figures, reproduction_figures
from hosnn.report.page import Picture, example_pictures, page, pictures_of, protocol_texts
from hosnn.report.paired_networks import CAPTION, HEADS, paired_networks
from hosnn.report.phrases import duration
from hosnn.report.reproduction_summary import finding, limitations
from hosnn.report.reproduction_tables import Heading, headings, table_rows, what_is_shown
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import ReproductionResult
from hosnn.results.roles import Strength
from hosnn.results.text import NOT_RUN, describe_machine, percent


def render_reproduction(
    result: ReproductionResult,
    traces: Sequence[NeuronTrace] = (),
    examples: Sequence[Example] = (),
    logs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The report of a reproduction.

    traces, examples  from `evaluation.examples`; a picture without its values is left out
    logs              entries of log.jsonl by experiment name: step, epoch, loss, validation_accuracy
    """
    main_finding, plain_neuron = finding(result)
    evaluations = [evaluation for cell in result.cells for evaluation in cell.evaluations.values()]
    return page(
        "reproduction.html",
        title=result.title,
        finding=main_finding,
        plain_neuron=plain_neuron,
        subject=f"{result.title}. Data: {result.dataset}. Network: {result.network}.",
        limitations=limitations(result),
        head=[Heading("network"), *headings(result), Heading("source")],
        rows=table_rows(result),
        what_is_shown=f"{what_is_shown(result)}; rows in italics are published numbers",
        paired={"heads": HEADS, "caption": CAPTION, "rows": [pair.texts for pair in paired_networks(result)]},
        pictures=[
            *_result_pictures(result),
            *_trace_pictures(traces),
            *example_pictures(examples),
            *pictures_of(
                "Training",
                "Training loss and validation accuracy, both on the images that each objective trains on: attacked "
                "ones in adversarial training. The checkpoint with the best validation accuracy was kept, or, of a "
                "recipe with a probe, the one with the best accuracy under its attacks; no test image was used.",
                reproduction_figures.training_curves(result, logs or {}),
            ),
        ],
        protocols=protocol_texts(evaluations),
        differ=len({e.protocol for e in evaluations}) > 1
        and any(evaluation.strength is Strength.PUBLISHED_ATTACKS for evaluation in evaluations),
        runs=[
            {
                "network": f"{cell.neuron}, {cell.training}",
                "experiment": cell.experiment,
                "identity": cell.identity,
                "seed": cell.seed,
                "epochs": cell.epochs,
                "training": duration(cell.training_seconds),
                "validation": f"{percent(cell.validation)} %",
                "model": next((e.model_sha256 for e in cell.evaluations.values()), ""),
                "attacks": ", ".join(f"{name} {duration(e.seconds)}" for name, e in cell.evaluations.items())
                or NOT_RUN,
            }
            for cell in result.cells
        ],
        facts=_facts(evaluations),
        settings={
            name: json.dumps(experiment, indent=1, sort_keys=True) for name, experiment in result.experiments.items()
        },
    )


def _result_pictures(result: ReproductionResult) -> list[Picture]:
    bars = pictures_of(
        "The table as bars",
        "Filled bars: adversarially trained; hatched: trained on clean images. Thin lines: 95 % interval, or the range "
        "over seeds. Diamonds: published numbers.",
        reproduction_figures.bars(result) if result.cells else None,
    )
    return bars + pictures_of(
        "Accuracy as the attacker's budget grows",
        "Solid: adversarially trained; dashed: trained on clean images. Bands: 95 % interval, or the range over seeds. "
        "A sound evaluation falls to chance or below at large eps; where a curve stays high, the attack fails there.",
        reproduction_figures.curves(result),
    )


def _trace_pictures(traces: Sequence[NeuronTrace]) -> list[Picture]:
    if not traces:
        return []
    chosen_by = next((trace for trace in traces if trace.signature is None), traces[0]).network
    return pictures_of(
        "One neuron over time",
        "The same neuron in each network. The membrane potential (solid) collects input; where it exceeds the "
        "threshold (dashed) the neuron spikes (bars below) and is reset. A TA-LIF neuron moves its threshold by the "
        "gap between membrane and signature (dotted), the mean it had on clean training data. "
        f"Chosen by {chosen_by} alone: of the neurons that spike on the clean image, the one whose membrane the "
        "attack moves most. The panels have scales of their own. One neuron illustrates; what counts is the table.",
        example_figures.neuron_figure(traces),
    )


def _facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    data = dict.fromkeys(f"{e.dataset} {e.dataset_sha256}".strip() for e in evaluations)
    versions = dict.fromkeys(
        ", ".join(f"{package} {version}" for package, version in e.versions.items()) for e in evaluations
    )
    return [
        ("Data, SHA-256", "; ".join(data)),
        ("Attack seeds", ", ".join(map(str, sorted({e.seed for e in evaluations})))),
        ("Versions", "; ".join(versions)),
        ("Hardware", "; ".join(dict.fromkeys(describe_machine(e.machine) for e in evaluations))),
        ("Time for attacks", duration(sum(e.seconds for e in evaluations))),
    ]
