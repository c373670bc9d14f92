"""One self-contained HTML page from a result: no scripts, nothing fetched, pictures inline.  Pure functions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from hosnn.evaluation import figures, pictures
from hosnn.evaluation.close_up import Example, NeuronStory
from hosnn.evaluation.comparison import Comparison
from hosnn.evaluation.headline import EXPLANATIONS, NOTABLE, budget, headline, notes
from hosnn.evaluation.result import Evaluation
from hosnn.evaluation.statistics import Interval, wilson
from hosnn.evaluation.tables import NOT_RUN, describe_machine, headings, how, lines, percent


class Picture(NamedTuple):
    title: str
    caption: str
    source: str  # data URI


def render(
    comparison: Comparison,
    stories: Sequence[NeuronStory] = (),
    examples: Sequence[Example] = (),
    logs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The report of a comparison.

    stories, examples  from `close_up`; a picture without its values is left out
    logs               entries of log.jsonl by experiment name: step, epoch, loss, validation_accuracy
    """
    first, second = headline(comparison)
    evaluations = [found for cell in comparison.cells for found in cell.evaluations.values()]
    return _page(
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
            *_example_pictures(examples),
            *_picture(
                "Training",
                "Training loss and validation accuracy, both on images as each objective sees them, attacked ones in "
                "adversarial training. The checkpoint of best validation accuracy was kept; test images had no part.",
                figures.training_curves(comparison, logs or {}),
            ),
        ],
        protocols=_protocols(evaluations),
        differ=len({e.protocol for e in evaluations}) > 1 and any(e.protocol == "paper" for e in evaluations),
        glossary=True,
        runs=[
            {
                "network": f"{cell.neuron}, {cell.training}",
                "experiment": cell.experiment,
                "identity": cell.identity,
                "seed": cell.seed,
                "epochs": cell.epochs,
                "training": _duration(cell.training_seconds),
                "validation": f"{percent(cell.validation)} %",
                "model": next((e.model_sha256 for e in cell.evaluations.values()), ""),
                "attacks": ", ".join(f"{n} {_duration(e.seconds)}" for n, e in cell.evaluations.items()) or NOT_RUN,
            }
            for cell in comparison.cells
        ],
        facts=_facts(evaluations),
        settings={name: _json(experiment) for name, experiment in comparison.experiments.items()},
    )


def render_evaluation(evaluation: Evaluation) -> str:
    """The report of one model under one protocol."""
    low, high = wilson(sum(evaluation.standing), evaluation.samples)
    at = budget(evaluation.threat)
    none = ("none (clean images)", "", evaluation.clean_accuracy, evaluation.interval(), "")
    attacks = (
        (
            row.attack,
            row.threat,
            evaluation.accuracy(row.attack),
            evaluation.interval(row.attack),
            _duration(row.seconds),
        )
        for row in evaluation.rows
    )
    worst = ("worst case per image", evaluation.threat, evaluation.worst_case, Interval(low, high), "")
    remarks = []
    if (high - low) / 2 > NOTABLE:
        remarks.append(
            f"A small sample: {evaluation.samples:,} images leave the worst case uncertain by "
            f"{50 * (high - low):.1f} points either way."
        )
    if evaluation.protocol in ("paper", "smoke"):
        remarks.append(
            f"The {evaluation.protocol} protocol is a weak attack; true robustness is lower or equal. Run a stronger "
            "protocol before quoting a number."
        )
    return _page(
        title=f"{evaluation.model}: {evaluation.protocol}",
        first=f"Under the {evaluation.protocol} protocol at {at}, {evaluation.model} keeps "
        f"{percent(evaluation.worst_case)} % of {evaluation.samples:,} images; without an attack it gets "
        f"{percent(evaluation.clean_accuracy)} % right.",
        second="",
        subject=f"Data: {evaluation.dataset}.",
        notes=remarks,
        head=[("attack", ""), ("accuracy, %", ""), ("threat", ""), ("time", "")],
        rows=[
            {
                "name": name,
                "cells": [(percent(share), f"[{percent(span.low)}, {percent(span.high)}]"), (threat, "")],
                "source": seconds,
                "measured": True,
            }
            for name, threat, share, span, seconds in (none, *attacks, worst)
        ],
        how="[Wilson 95 % interval]"
        + ("; each attack sees only the images that those above it left standing" if evaluation.cascade else ""),
        pictures=_picture(
            "Accuracy as the attacker's budget grows",
            "The band is the 95 % interval. A sound evaluation falls to chance or below as eps grows; a curve that "
            "stays high means that the attack fails, not that the network holds.",
            figures.evaluation_curve(evaluation),
        ),
        protocols=_protocols([evaluation]),
        differ=False,
        glossary=True,
        runs=[],
        facts=[*_facts([evaluation]), ("Model SHA-256", evaluation.model_sha256 or "a function without weights")],
        settings={},
    )


def _page(**content: Any) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html").render(content)


def _pictures(comparison: Comparison) -> list[Picture]:
    found = _picture(
        "The table as bars",
        "Filled bars: adversarially trained; hatched: trained on clean images. Thin lines: 95 % interval, or the range "
        "over seeds. Diamonds: published numbers.",
        figures.bars(comparison) if comparison.cells else None,
    )
    return found + _picture(
        "Accuracy as the attacker's budget grows",
        "Solid: adversarially trained; dashed: trained on clean images. Bands: 95 % interval, or the range over seeds. "
        "A sound evaluation falls to chance or below at large eps; where a curve stays high, the attack fails there.",
        figures.curves(comparison),
    )


def _close_ups(stories: Sequence[NeuronStory]) -> list[Picture]:
    if not stories:
        return []
    chooser = next((story for story in stories if story.signature is None), stories[0])
    return _picture(
        "One neuron, seen close up",
        "The same neuron in each network. The membrane potential (solid) collects input; where it exceeds the "
        "threshold (dashed) the neuron spikes (bars below) and is reset. A TA-LIF neuron moves its threshold by the "
        "gap between membrane and signature (dotted), the mean it had on clean training data. "
        f"Chosen by {chooser.network} alone: of the neurons that spike on the clean image, the one whose membrane the "
        "attack moves most. The panels have scales of their own. One neuron illustrates; what counts is the table.",
        pictures.close_up(stories),
    )


def _example_pictures(examples: Sequence[Example]) -> list[Picture]:
    found = []
    for network in dict.fromkeys(example.network for example in examples):
        mine = [example for example in examples if example.network == network]
        fooled = sum(example.adversarial_prediction != example.label for example in mine)
        found += _picture(
            f"Attacked images: {network}",
            f"Test images that it gets right when clean, chosen before the attack ran; {fooled} of these {len(mine)} "
            "fool it. Middle row: what was added, magnified around grey.",
            pictures.example_grid(mine),
        )
    return found


def _picture(title: str, caption: str, figure: Figure | None) -> list[Picture]:
    return [] if figure is None else [Picture(title, caption, figures.data_uri(figures.svg(figure)))]


def _protocols(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    found = {}
    for e in evaluations:
        extent = "at every time step anew" if e.threat.endswith("/step") else "the same at every time step"
        found[e.protocol] = {
            "name": e.protocol,
            "text": EXPLANATIONS.get(e.protocol, e.description),
            "detail": f"Threat {e.threat}: a perturbation of at most {budget(e.threat)}, {extent}. "
            f"Attacks: {', '.join(row.attack for row in e.rows)}. Settings: {e.description}.",
        }
    return list(found.values())


def _facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    data = dict.fromkeys(f"{e.dataset} {e.dataset_sha256}".strip() for e in evaluations)
    versions = dict.fromkeys(", ".join(f"{name} {what}" for name, what in e.versions.items()) for e in evaluations)
    return [
        ("Data, SHA-256", "; ".join(data)),
        ("Attack seeds", ", ".join(map(str, sorted({e.seed for e in evaluations})))),
        ("Versions", "; ".join(versions)),
        ("Hardware", "; ".join(dict.fromkeys(describe_machine(e) for e in evaluations))),
        ("Time for attacks", _duration(sum(e.seconds for e in evaluations))),
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)
