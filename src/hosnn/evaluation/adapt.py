"""Fitting a protocol to a model: leaving out what cannot apply, and choosing gradient estimators by a short search."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hosnn.estimators import Estimator, title
from hosnn.evaluation.protocol import Entry, Kind, PanelPlan, Protocol, Search
from hosnn.evaluation.result import Network, Row
from hosnn.robustness.threats import Threat


def applicable(protocol: Protocol, network: Network, classes: int) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol without attacks that cannot apply to such a network, and what was left out, with the reason."""
    skipped: dict[str, str] = {}

    def applies(entry: Entry) -> bool:
        if entry.kind is Kind.WHITE_BOX and not network.gradient:
            skipped[entry.name] = "the model has no gradient to its input"
        elif entry.spiking and not network.layers:
            skipped[entry.name] = "no hosnn spiking layer found"
        elif entry.adaptive and not network.adaptive:
            skipped[entry.name] = "no adapting threshold found"
        elif entry.classes > classes:
            skipped[entry.name] = f"its loss needs {entry.classes} classes, the model has {classes}"
        return entry.name not in skipped

    entries = tuple(filter(applies, protocol.entries))
    panels = tuple(replace(panel, entries=tuple(filter(applies, panel.entries))) for panel in protocol.panels)
    search = protocol.search if network.layers and network.gradient else None
    if protocol.search and not search:
        skipped["search for estimators"] = "no hosnn spiking layer with a gradient found"
    kept = replace(protocol, entries=entries, panels=tuple(panel for panel in panels if panel.entries), search=search)
    return kept, tuple(f"{name}: {reason}" for name, reason in skipped.items())


def candidates(search: Search, threat: Threat) -> PanelPlan:
    """The candidates as a panel."""
    entries = tuple(
        Entry(title(candidate), search.attack, threat, estimator=candidate, spiking=True)
        for candidate in search.candidates
    )
    return PanelPlan("search", entries, search.samples)


def best(search: Search, rows: Sequence[Row], y: Tensor) -> tuple[Estimator, ...]:
    """The candidates kept: greedily those that together leave fewest standing, ties by what each leaves alone."""
    standing = [torch.tensor(row.predictions) == y[: len(row.predictions)] for row in rows]
    together = torch.ones_like(standing[0])
    left = list(range(len(rows)))
    kept: list[int] = []
    while left and len(kept) < search.keep:
        best = min(left, key=lambda at: (int((together & standing[at]).sum()), int(standing[at].sum()), at))
        together = together & standing[best]
        left.remove(best)
        kept.append(best)
    return tuple(search.candidates[at] for at in kept)
