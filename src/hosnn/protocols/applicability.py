"""Fitting a protocol to a model: leaving out what cannot apply, and choosing gradient estimators by a short search."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hosnn.estimators import Estimator, title
from hosnn.protocols.protocol import AttackKind, AttackSpec, PanelPlan, Protocol, Search
from hosnn.results.evaluation import AttackResult, Network
from hosnn.robustness.threats import Threat


def applicable(protocol: Protocol, network: Network, classes: int) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol without attacks that cannot apply to such a network, and what was left out, with the reason."""
    skipped: dict[str, str] = {}

    def applies(spec: AttackSpec) -> bool:
        if spec.kind is AttackKind.WHITE_BOX and not network.gradient:
            skipped[spec.name] = "the model has no gradient to its input"
        elif spec.spiking and not network.layers:
            skipped[spec.name] = "no hosnn spiking layer found"
        elif spec.adaptive and not network.adaptive:
            skipped[spec.name] = "no adapting threshold found"
        elif spec.classes > classes:
            skipped[spec.name] = f"its loss needs {spec.classes} classes, the model has {classes}"
        return spec.name not in skipped

    attacks = tuple(filter(applies, protocol.attacks))
    panels = tuple(replace(panel, attacks=tuple(filter(applies, panel.attacks))) for panel in protocol.panels)
    search = protocol.search if network.layers and network.gradient else None
    if protocol.search and not search:
        skipped["search for estimators"] = "no hosnn spiking layer with a gradient found"
    kept = replace(protocol, attacks=attacks, panels=tuple(panel for panel in panels if panel.attacks), search=search)
    return kept, tuple(f"{name}: {reason}" for name, reason in skipped.items())


def candidates(search: Search, threat: Threat) -> PanelPlan:
    """The candidates as a panel."""
    attacks = tuple(
        AttackSpec(title(candidate), search.attack, threat, estimator=candidate, spiking=True)
        for candidate in search.candidates
    )
    return PanelPlan("search", attacks, search.samples)


def best(search: Search, rows: Sequence[AttackResult], y: Tensor) -> tuple[Estimator, ...]:
    """The candidates kept: greedily those that together leave fewest standing, ties by what each leaves alone."""
    robust = [torch.tensor(row.predictions) == y[: len(row.predictions)] for row in rows]
    together = torch.ones_like(robust[0])
    left = list(range(len(rows)))
    kept: list[int] = []
    while left and len(kept) < search.keep:
        best = min(left, key=lambda at: (int((together & robust[at]).sum()), int(robust[at].sum()), at))
        together = together & robust[best]
        left.remove(best)
        kept.append(best)
    return tuple(search.candidates[at] for at in kept)
