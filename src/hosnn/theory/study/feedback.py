"""Sign and strength of the feedback on real spikes: what a threshold held higher does to the mean membrane."""

import itertools
from typing import Any

import torch
from torch import Tensor

from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory.linear import frozen_rate, responding_rate, static_feedback
from hosnn.theory.population import LIF, OperatingPoints, operating_points, run
from hosnn.theory.study.effort import Effort, Rows, mean_and_half_width

TAUS = (2.0, 5.0, 20.0)
RATES = (0.2, 0.5, 0.8)
NOISE = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
SHIFT = 0.05
"""By which the threshold is held higher and lower, in resting thresholds."""


def feedback(effort: Effort) -> dict[str, Any]:
    """G = -∂E[u]/∂θ of LIF at rest, per condition: frozen rate, responding rate, measured with its 95 % band."""
    rows: Rows = []
    conditions = list(itertools.product(RATES, NOISE))
    for place, (reset, tau) in enumerate(itertools.product(Reset, TAUS)):
        generator = effort.generator(10 + place)
        rates, noise = (torch.tensor(column) for column in zip(*conditions, strict=True))
        points = operating_points(
            rates, noise, Dynamics(tau, reset=reset), effort.neurons // 2, effort.steps // 4, generator
        )
        slopes = _slopes(points, effort.steps // 2, generator)
        for cell, (rate, width) in enumerate(conditions):
            actual, sensitivity = float(points.rate[cell]), float(points.sensitivity[cell])
            mean, half = mean_and_half_width(slopes[cell])
            rows.append(
                {
                    "reset": reset.value,
                    "tau": tau,
                    "rate": rate,
                    "noise": width,
                    "measured_rate": actual,
                    "sensitivity": sensitivity,
                    "frozen": static_feedback(frozen_rate(tau, actual, 0.0, reset)),
                    "responding": static_feedback(responding_rate(tau, actual, sensitivity, 0.0, reset)),
                    "measured": mean,
                    "half_width": half,
                }
            )
    return {"rows": rows, "summary": [summary(rows, reset) for reset in Reset]}


def _slopes(points: OperatingPoints, steps: int, generator: torch.Generator) -> Tensor:
    """Per neuron, (E[u] at θ - shift minus E[u] at θ + shift)/(2 shift), with the same noise.  [C, N]"""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    means = []
    for shift in (-SHIFT, SHIFT):
        state = points.state._replace(threshold=points.state.threshold + shift)
        total = torch.zeros_like(state.membrane)
        currents = points.currents(2 * steps, torch.Generator().manual_seed(seed))
        for t, (step, _) in enumerate(run(currents, state, points.signature, LIF, points.dynamics)):
            if t >= steps // 2:
                total += step.membrane
        means.append(total / (2 * steps - steps // 2))
    return (means[0] - means[1]) / (2 * SHIFT)


def summary(rows: Rows, reset: Reset) -> dict[str, Any]:
    """How often each linearisation has the sign that was measured, where the band excludes 0."""
    clear = [row for row in rows if row["reset"] == reset.value and abs(row["measured"]) > row["half_width"]]
    wide = [row for row in clear if row["noise"] >= 1]
    return {
        "reset": reset.value,
        "conditions": sum(row["reset"] == reset.value for row in rows),
        "clear": len(clear),
        "negative": sum(row["measured"] < 0 for row in clear),
        "frozen_right": sum(row["frozen"] * row["measured"] > 0 for row in clear),
        "responding_right": sum(row["responding"] * row["measured"] > 0 for row in clear),
        "responding_deviation_wide": max((abs(row["responding"] - row["measured"]) for row in wide), default=0.0),
        "frozen_deviation_wide": max((abs(row["frozen"] - row["measured"]) for row in wide), default=0.0),
    }
