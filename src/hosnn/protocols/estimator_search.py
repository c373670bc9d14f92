"""The search for the gradient estimators that serve an attacker best against one model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hosnn.estimators import Estimator, OnFrames, estimator_name
from hosnn.protocols.protocol import AttackSpec, EstimatorSearch, PanelPlan
from hosnn.results.evaluation import AttackResult
from hosnn.robustness.threats import Threat


def search_panel(search: EstimatorSearch, threat: Threat) -> PanelPlan:
    """The search's attack through each candidate, as a panel; of each time step if the threat is."""
    attack = OnFrames(search.attack) if threat.per_step else search.attack
    attacks = tuple(
        AttackSpec(name=estimator_name(candidate), attack=attack, threat=threat, estimator=candidate, spiking=True)
        for candidate in search.candidates
    )
    return PanelPlan("search", attacks, search.samples)


def best_estimators(search: EstimatorSearch, results: Sequence[AttackResult], y: Tensor) -> tuple[Estimator, ...]:
    """The candidates to select, greedily: next comes the one with which fewest images stay robust.

    Ties are broken by the number of images that a candidate leaves robust alone, then by order.
    results  of `search_panel`, in the candidates' order
    y        labels of all images  [N]
    """
    robust = [_robust(result, y) for result in results]
    together = torch.ones_like(robust[0])
    remaining = list(range(len(results)))
    selected: list[int] = []
    while remaining and len(selected) < search.keep:
        best = min(
            remaining, key=lambda number: (int((together & robust[number]).sum()), int(robust[number].sum()), number)
        )
        together = together & robust[best]
        remaining.remove(best)
        selected.append(best)
    return tuple(search.candidates[number] for number in selected)


def _robust(result: AttackResult, y: Tensor) -> Tensor:
    """Which images a candidate leaves robust [samples]."""
    robust = torch.tensor(result.predictions) == y[: len(result.predictions)]
    robust[list(result.tied or ())] = False
    return robust
