"""Whether a spiking population keeps its operating point, on both sides of every boundary of both linearisations."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory.linear import ErrorDynamics, frozen_rate, responding_rate
from hosnn.theory.population import Feedback, OperatingPoints, operating_points, run
from hosnn.theory.study.effort import Effort, Rows

TAUS = (2.0, 5.0, 20.0)
RATES = (0.2, 0.5, 0.8)
NOISE = (0.5, 1.0, 2.0, 4.0)
SMALL = 0.05
GROUPS = 3
"""Independent populations per condition; a condition is decided where all agree."""
OFFSET = 0.1
"""Of the threshold at the start, in resting thresholds."""


def stability(effort: Effort) -> dict[str, Any]:
    """Rows of (reset, τ_m, r, noise, k): predictions, and shares of populations that kept their operating point.

    The k of a condition lie on both sides of k = 0 (± .05), of the frozen rate's upper boundary and of the responding
    rate's (0.6 and 1.5 times).  `shared` populations have one threshold, moved by their mean error; `own` are as
    published, a threshold for each neuron.
    """
    rows: Rows = []
    for place, (reset, tau) in enumerate(itertools.product(Reset, TAUS)):
        rows += _rows(reset, tau, effort, effort.generator(30 + place))
    return {"rows": rows, "summary": [summary(rows, reset, kind) for reset in Reset for kind in ("sign", "upper")]}


def _rows(reset: Reset, tau: float, effort: Effort, generator: torch.Generator) -> Rows:
    conditions = list(itertools.product(RATES, NOISE))
    rates, noise = (torch.tensor(column) for column in zip(*conditions, strict=True))
    neurons = effort.neurons // 2
    points = operating_points(rates, noise, Dynamics(tau, reset=reset), neurons, effort.steps // 4, generator)
    rows: Rows = []
    cells: list[int] = []
    for cell, (rate, width) in enumerate(conditions):
        actual, sensitivity = float(points.rate[cell]), float(points.sensitivity[cell])
        frozen = frozen_rate(tau, actual, 0.0, reset)
        responding = responding_rate(tau, actual, sensitivity, 0.0, reset)
        for boundary, adaptation in _adaptations(tau, actual, responding):
            cells.append(cell)
            rows.append(
                {
                    "reset": reset.value,
                    "tau": tau,
                    "rate": rate,
                    "noise": width,
                    "sensitivity": sensitivity,
                    "boundary": boundary,
                    "adaptation": adaptation,
                    "frozen": frozen.with_adaptation(adaptation).is_stable,
                    "responding": responding.with_adaptation(adaptation).is_stable,
                    "slow": _slow(responding.with_adaptation(adaptation), effort.steps),
                }
            )
    chosen = points.taken(torch.tensor(cells)).repeated(GROUPS)
    every_k = torch.tensor([row["adaptation"] for row in rows], dtype=torch.float64)
    for name, shared in (("shared", True), ("own", False)):
        kept = _keeps(chosen, Feedback(every_k.repeat_interleave(GROUPS)[:, None], shared=shared), effort, generator)
        for row, share in zip(rows, kept.view(-1, GROUPS).double().mean(1).tolist(), strict=True):
            row[name] = share
    return rows


def _adaptations(tau: float, rate: float, responding: ErrorDynamics) -> list[tuple[str, float]]:
    """(boundary, k): both sides of 0 and of the outer boundaries; none of a linearisation with no boundary."""
    decay = 1 - 1 / tau
    outer = {"frozen": 2 * (1 + decay) / (decay * rate)}
    interval = responding.stable_adaptation
    if interval is not None and all(map(math.isfinite, interval)):
        outer["responding"] = max(interval, key=abs)
    chosen = [("sign", SMALL), ("sign", -SMALL)]
    return chosen + [(name, factor * end) for name, end in outer.items() for factor in (0.6, 1.5)]


def _slow(dynamics: ErrorDynamics, steps: int) -> bool:
    """Whether the linear model needs more than a fifth of the run to shrink or grow e-fold: too slow to be judged."""
    return abs(math.log(abs(dynamics.poles[0]))) < 5 / steps


def _keeps(points: OperatingPoints, feedback: Feedback, effort: Effort, generator: torch.Generator) -> Tensor:
    """Whether the threshold stays where it was, and the rate with it: from an offset, over `effort.steps`.  [C]

    The root mean square shift of the last quarter must not exceed 1.5 times that of the second quarter, or must have
    fallen below half the offset; and the rate of the last quarter must lie within .1 of what it was.
    """
    quarter = effort.steps // 4
    state = points.state._replace(threshold=points.state.threshold + OFFSET)
    squares = torch.zeros(4, len(points.rate), dtype=torch.float64)
    rates = torch.zeros_like(squares)
    currents = points.currents(4 * quarter, generator)
    for t, (step, _) in enumerate(run(currents, state, points.signature, feedback, points.dynamics)):
        squares[t // quarter] += (step.threshold - points.dynamics.threshold).square().mean(1) / quarter
        rates[t // quarter] += step.spikes.mean(1) / quarter
    shift = squares.sqrt()
    bounded = (shift[3] <= 1.5 * shift[1]) | (shift[3] < OFFSET / 2)
    return bounded & ((rates[3] - points.rate[:, 0]).abs() < 0.1)


def summary(rows: Rows, reset: Reset, kind: str) -> dict[str, Any]:
    """Counts of conditions, small k of either sign or k at an outer boundary, where prediction and outcome agree."""
    ours = [row for row in rows if row["reset"] == reset.value and (row["boundary"] == "sign") == (kind == "sign")]
    judged = [row for row in ours if not row["slow"]]
    counts: dict[str, Any] = {
        "reset": reset.value,
        "kind": kind,
        "conditions": len(ours),
        "too_slow": len(ours) - len(judged),
    }
    for outcome in ("shared", "own"):
        decided = [row for row in judged if row[outcome] in (0.0, 1.0)]
        counts[outcome] = {
            "decided": len(decided),
            "kept": sum(row[outcome] == 1 for row in decided),
            "frozen_right": sum(row["frozen"] == (row[outcome] == 1) for row in decided),
            "responding_right": sum(row["responding"] == (row[outcome] == 1) for row in decided),
        }
        positive = [row for row in decided if row["adaptation"] > 0]
        counts[outcome]["kept_with_positive_k"] = sum(row[outcome] == 1 for row in positive)
        counts[outcome]["positive_k"] = len(positive)
    return counts
