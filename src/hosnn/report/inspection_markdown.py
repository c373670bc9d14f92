"""Errors of the membrane in several networks, side by side, as Markdown."""

import math
from collections.abc import Iterator, Sequence

from hosnn.report.phrases import NO_VALUE
from hosnn.results.inspection import Inspection, LayerActivity, MembraneError

HEADINGS = (
    *(
        "network",
        "condition",
        "layer",
        "rate",
        "u - u*",
        "with k = 0",
        "removed",
        "u - u clean",
        "with k = 0",
        "removed",
    ),
)
KINDS = ("from_signature", "from_clean")


def inspections_markdown(inspections: Sequence[Inspection]) -> str:
    """One row for each network, condition and hidden layer: mean squares at the first and the last time step."""
    lines = [HEADINGS, ("---",) * 3 + ("---:",) * (len(HEADINGS) - 3)]
    lines += [row for inspection in inspections for row in _rows(inspection)]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _rows(inspection: Inspection) -> Iterator[tuple[str, ...]]:
    for condition in inspection.conditions:
        for layer in condition.layers:
            if layer.error.from_signature or layer.error_without_adaptation:
                columns = (column for kind in KINDS for column in _columns(layer, kind))
                yield inspection.model, condition.name, layer.layer, f"{layer.rate:.3f}", *columns


def _columns(layer: LayerActivity, kind: str) -> tuple[str, str, str]:
    removed = layer.removed(kind)
    share = NO_VALUE if math.isnan(removed) else f"{100 * removed:+.0f} %"
    return first_and_last(layer.error, kind), first_and_last(layer.error_without_adaptation, kind), share


def first_and_last(error: MembraneError | None, kind: str) -> str:
    """The mean square at the first and the last time step, of `kind` from_signature or from_clean."""
    values = () if error is None else getattr(error, kind)
    return f"{values[0]:.3g} → {values[-1]:.3g}" if values else NO_VALUE
