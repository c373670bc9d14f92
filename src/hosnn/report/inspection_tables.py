"""The tables of an inspection as rows of text, for the terminal and the page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from hosnn.report.inspection_markdown import first_and_last
from hosnn.report.phrases import NO_VALUE
from hosnn.results.inspection import Drift, Energy, Inspection

MISFIT = 5.0
"""Drift over chance above which a signature does not fit: 1 is expected without drift, 2 of a signature recorded on no
more images than were inspected, and neurons that vary together widen the spread."""


class TextTable(NamedTuple):
    """A table; `words` is the number of columns, from the left, that hold names and not numbers."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int = 1


def inspection_tables(result: Inspection) -> list[TextTable]:
    """All tables that the result has something for."""
    tables = [activity(result), errors(result)]
    if result.adaptive:
        tables.append(stability(result))
    if result.drift:
        tables.append(drift(result))
    if result.energy is not None:
        tables.append(energy(result))
    return tables


def activity(result: Inspection) -> TextTable:
    headings = ("condition", "accuracy", "layer", "rate", "silent", "saturated", "mean threshold")
    rows = []
    for condition in result.conditions:
        for number, layer in enumerate(condition.layers):
            rows.append(
                (
                    condition.name,
                    f"{100 * condition.accuracy:.1f} %" if number == 0 else "",
                    layer.layer,
                    f"{layer.rate:.3f}",
                    f"{100 * layer.silent:.1f} %",
                    f"{100 * layer.saturated:.1f} %",
                    f"{layer.threshold[0]:.2f} → {layer.threshold[-1]:.2f}",
                )
            )
    return TextTable("activity", headings, rows, words=3)


def errors(result: Inspection) -> TextTable:
    """Of the network and with k = 0 in all layers; what a layer removes is measured against itself alone with k = 0."""
    headings = ("condition", "layer", "error", "network", "all k = 0", "removed")
    rows = []
    for condition in result.conditions:
        for layer in condition.layers:
            for kind, name in (("from_signature", "u - u*"), ("from_clean", "u - u clean")):
                if getattr(layer.error, kind):
                    removed = layer.removed(kind)
                    share = NO_VALUE if math.isnan(removed) else f"{100 * removed:+.0f} %"
                    shown = (first_and_last(error, kind) for error in (layer.error, layer.error_without_adaptation))
                    rows.append((condition.name, layer.layer, name, *shown, share))
    title = "mean square error of the membrane, first → last time step, and the share that a layer's feedback removes"
    return TextTable(title, headings, rows, words=3)


def stability(result: Inspection) -> TextTable:
    rows = []
    for layer in result.adaptive:
        span = f"{layer.lowest_adaptation:.2f}-{layer.highest_adaptation:.2f}, mean {layer.mean_adaptation:.2f}"
        frozen, responding = layer.frozen_rate, layer.responding_rate
        counts = (frozen.inside, responding.inside, frozen.open_loop, frozen.silent)
        shares = (f"{100 * count / layer.neurons:.1f} %" for count in counts)
        rows.append((layer.layer, f"{layer.neurons:,}", span, *shares))
    title = "learned k, and neurons inside the stability interval, at a frozen and at a responding rate"
    return TextTable(title, ("layer", "neurons", "k", "frozen", "responding", "open loop", "silent"), rows)


def drift(result: Inspection) -> TextTable:
    rows = [
        (f"{part.images:,} {part.dataset}", layer, f"{value:.3g}", f"{part.by_chance[layer]:.2g}", _ratio(part, layer))
        for part in result.drift
        for layer, value in part.mean_square.items()
    ]
    title = "mean membranes against the signature, mean square"
    return TextTable(title, ("images of", "layer", "drift", "by chance alone", "ratio"), rows, words=2)


def drift_sentences(result: Inspection) -> list[str]:
    """For each data set, whether the signature fits its images."""
    sentences = []
    for part in result.drift:
        ratios = {layer: part.over_chance(layer) for layer in part.mean_square}
        layer = max(ratios, key=ratios.__getitem__)
        of = f"the images of {part.dataset}"
        if part.images == 1:
            sentences.append(f"whether the signature fits {of} cannot be told from one of them: inspect more")
        elif ratios[layer] > MISFIT:
            sentences.append(
                f"the signature does not fit {of}: in layer {layer} the drift of mean membranes from it is "
                f"{_ratio(part, layer)} times what chance gives"
            )
        else:
            sentences.append(f"the signature fits {of}: no layer is further from it than chance may explain")
    return sentences


def _ratio(part: Drift, layer: str) -> str:
    ratio = part.over_chance(layer)
    if math.isnan(ratio):
        return NO_VALUE
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def energy(result: Inspection) -> TextTable:
    """A column for each condition whose operations were counted."""
    energies = result.energies()
    columns = [_energy_column(value) for value in energies.values()]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return TextTable("per image, NeuroBench's names", ("metric", *energies), rows)


def energy_sentence(result: Inspection) -> str:
    """The spike rate beside that of a quantised network, or why operations were not counted."""
    energy = result.energy
    if energy is None:
        return result.energy_missing
    sentence = f"{energy.rate:.3f} spikes per neuron and time step on clean images"
    if math.isnan(energy.break_even_rate):
        return sentence
    side = "above" if energy.rate > energy.break_even_rate else "below"
    return f"{sentence}, {side} the {energy.break_even_rate} at which a quantised ANN needs as much energy"


def _energy_column(energy: Energy) -> dict[str, str]:
    counts = {
        name: f"{value:.4f}" if name == "ActivationSparsity" else f"{value:,.0f}"
        for name, value in energy.neurobench.items()
    }
    parts = {f"energy, {name}": f"{value / 1e6:.3f} µJ" for name, value in energy.picojoule.items()}
    return counts | parts | {"signature and k, bytes": f"{energy.signature_bytes:,}"}
