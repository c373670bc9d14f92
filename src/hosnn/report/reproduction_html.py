"""The report of a comparison: one self-contained HTML page.  A pure function of the result."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hosnn.evaluation.examples import Example, NeuronTrace
from hosnn.report import example_figures, reproduction_figures
from hosnn.report.evaluation_tables import duration
from hosnn.report.page import Picture, example_pictures, page, picture, protocol_texts
from hosnn.report.reproduction_summary import headline, notes
from hosnn.report.reproduction_tables import headings, how, lines
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import ReproductionResult
from hosnn.results.roles import Strength
from hosnn.results.text import NOT_RUN, describe_machine, percent


def render(
    comparison: ReproductionResult,
    stories: Sequence[NeuronTrace] = (),
    examples: Sequence[Example] = (),
    logs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The report of a comparison.

    stories, examples  from `close_up`; a picture without its values is left out
    logs               entries of log.jsonl by experiment name: step, epoch, loss, validation_accuracy
    """
    first, second = headline(comparison)
    evaluations = [found for cell in comparison.cells for found in cell.evaluations.values()]
    return page(
        "reproduction.html",
        title=comparison.title,
        first=first,
        second=second,
        subject=f"{comparison.title}. Data: {comparison.dataset}. Network: {comparison.network}.",
        notes=notes(comparison),
        head=[("network", ""), *map(_counted, headings(comparison)), ("source", "")],
        rows=[
            {
                "name": str(line.kind),
                "cells": [_parts(text) for text in line.texts],
                "source": line.source,
                "measured": line.measured,
            }
            for line in lines(comparison)
        ],
        how=f"{how(comparison)}; rows in italics are published numbers",
        pictures=[
            *_pictures(comparison),
            *_close_ups(stories),
            *example_pictures(examples),
            *picture(
                "Training",
                "Training loss and validation accuracy, both on images as each objective sees them, attacked ones in "
                "adversarial training. The checkpoint of best validation accuracy was kept; test images had no part.",
                reproduction_figures.training_curves(comparison, logs or {}),
            ),
        ],
        protocols=protocol_texts(evaluations),
        differ=len({e.protocol for e in evaluations}) > 1
        and any(e.strength is Strength.PUBLISHED_ATTACKS for e in evaluations),
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
                "attacks": ", ".join(f"{n} {duration(e.seconds)}" for n, e in cell.evaluations.items()) or NOT_RUN,
            }
            for cell in comparison.cells
        ],
        facts=_facts(evaluations),
        settings={name: _json(experiment) for name, experiment in comparison.experiments.items()},
    )


def _pictures(comparison: ReproductionResult) -> list[Picture]:
    found = picture(
        "The table as bars",
        "Filled bars: adversarially trained; hatched: trained on clean images. Thin lines: 95 % interval, or the range "
        "over seeds. Diamonds: published numbers.",
        reproduction_figures.bars(comparison) if comparison.cells else None,
    )
    return found + picture(
        "Accuracy as the attacker's budget grows",
        "Solid: adversarially trained; dashed: trained on clean images. Bands: 95 % interval, or the range over seeds. "
        "A sound evaluation falls to chance or below at large eps; where a curve stays high, the attack fails there.",
        reproduction_figures.curves(comparison),
    )


def _close_ups(stories: Sequence[NeuronTrace]) -> list[Picture]:
    if not stories:
        return []
    chooser = next((story for story in stories if story.signature is None), stories[0])
    return picture(
        "One neuron, seen close up",
        "The same neuron in each network. The membrane potential (solid) collects input; where it exceeds the "
        "threshold (dashed) the neuron spikes (bars below) and is reset. A TA-LIF neuron moves its threshold by the "
        "gap between membrane and signature (dotted), the mean it had on clean training data. "
        f"Chosen by {chooser.network} alone: of the neurons that spike on the clean image, the one whose membrane the "
        "attack moves most. The panels have scales of their own. One neuron illustrates; what counts is the table.",
        example_figures.close_up(stories),
    )


def _facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    data = dict.fromkeys(f"{e.dataset} {e.dataset_sha256}".strip() for e in evaluations)
    versions = dict.fromkeys(", ".join(f"{name} {what}" for name, what in e.versions.items()) for e in evaluations)
    return [
        ("Data, SHA-256", "; ".join(data)),
        ("Attack seeds", ", ".join(map(str, sorted({e.seed for e in evaluations})))),
        ("Versions", "; ".join(versions)),
        ("Hardware", "; ".join(dict.fromkeys(describe_machine(e.machine) for e in evaluations))),
        ("Time for attacks", duration(sum(e.seconds for e in evaluations))),
    ]


def _parts(text: str) -> tuple[str, str]:
    """A table's text as its number and what stands small below it."""
    if text == NOT_RUN:
        return text, ""
    number, _, spread = text.partition(" ")
    return number, spread


def _counted(heading: str) -> tuple[str, str]:
    """A heading as its words and the number of images, which stands small below."""
    words, _, count = heading.partition(" (n = ")
    return words, f"n = {count.removesuffix(')')}" if count else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)
