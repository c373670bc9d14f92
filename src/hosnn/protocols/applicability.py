"""Fitting a protocol to a model: leaving out what cannot apply, and choosing gradient estimators by a short search."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hosnn.estimators import Estimator, title
from hosnn.protocols.protocol import AttackKind, AttackSpec, PanelPlan, Protocol, Search
from hosnn.results.evaluation import AttackResult, Network
from hosnn.robustness.threats import Threat


def fit_to_network(protocol: Protocol, network: Network, classes: int) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol without attacks that cannot apply to such a network, and what was left out, with the reason."""
    skipped: dict[str, str] = {}

    def applies(spec: AttackSpec) -> bool:
        reason = _obstacle(spec, network, classes)
        if reason:
            skipped[spec.name] = reason
        return not reason

    attacks = tuple(filter(applies, protocol.attacks))
    panels = tuple(replace(panel, attacks=tuple(filter(applies, panel.attacks))) for panel in protocol.panels)
    search = protocol.search if network.layers and network.gradient else None
    if protocol.search and not search:
        skipped["search for estimators"] = "no hosnn spiking layer with a gradient found"
    kept = replace(protocol, attacks=attacks, panels=tuple(panel for panel in panels if panel.attacks), search=search)
    return kept, tuple(f"{name}: {reason}" for name, reason in skipped.items())


def _obstacle(spec: AttackSpec, network: Network, classes: int) -> str:
    """Why the attack cannot apply to such a network; empty if it can."""
    if spec.kind is AttackKind.WHITE_BOX and not network.gradient:
        return "the model has no gradient to its input"
    if spec.spiking and not network.layers:
        return "no hosnn spiking layer found"
    if spec.adaptive and not network.adaptive:
        return "no adapting threshold found"
    if spec.classes > classes:
        return f"its loss needs {spec.classes} classes, the model has {classes}"
    return ""


def search_panel(search: Search, threat: Threat) -> PanelPlan:
    """The search's attack through each candidate, as a panel."""
    attacks = tuple(
        AttackSpec(name=title(candidate), attack=search.attack, threat=threat, estimator=candidate, spiking=True)
        for candidate in search.candidates
    )
    return PanelPlan("search", attacks, search.samples)


def best_estimators(search: Search, results: Sequence[AttackResult], y: Tensor) -> tuple[Estimator, ...]:
    """The candidates kept: greedily those that together leave fewest images robust, ties by what each leaves alone.

    results  of `search_panel`, in the candidates' order; y [N], labels of all images
    """
    robust = [torch.tensor(result.predictions) == y[: len(result.predictions)] for result in results]
    together = torch.ones_like(robust[0])
    remaining = list(range(len(results)))
    kept: list[int] = []
    while remaining and len(kept) < search.keep:
        best = min(remaining, key=lambda at: (int((together & robust[at]).sum()), int(robust[at].sum()), at))
        together = together & robust[best]
        remaining.remove(best)
        kept.append(best)
    return tuple(search.candidates[at] for at in kept)
