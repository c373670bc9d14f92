"""The error of real spikes over time, LIF beside TA-LIF, under constant, white and Wiener disturbances."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory.growth import Disturbance, mean_square
from hosnn.theory.linear import frozen_rate
from hosnn.theory.population import Feedback, OperatingPoints, measured, operating_points, run
from hosnn.theory.study.effort import Effort, Rows, mean_and_half_width

TAU = 5.0
SIZE = 0.1
CURVE = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500)
ADAPTATION = (0.0, 0.02, 0.2)


def growth(effort: Effort) -> dict[str, Any]:
    """E[e²] with its 95 % band at the times of CURVE, per (reset, regime, disturbance, k).

    Regimes at τ_m = 5: "narrow" and "wide" noise (.5 and 2 resting thresholds) at r = .5, and "saturated", where the
    current alone makes the neuron fire at every step.  `frozen` is what the frozen rate predicts: the error of
    undisturbed LIF, measured, plus E[e²] of the linear model.
    """
    rows: Rows = []
    for place, reset in enumerate(Reset):
        generator = effort.generator(50 + place)
        for regime, points in regimes(reset, effort, generator).items():
            base: list[float] = []
            for adaptation in ADAPTATION:
                setting = {"reset": reset.value, "regime": regime, "adaptation": adaptation}
                quiet = _curve(points, adaptation, None, effort)
                base = base or quiet["mean"]
                rows.append(setting | quiet)
                for disturbance in Disturbance:
                    linear = mean_square(
                        frozen_rate(TAU, float(points.rate), adaptation, reset), disturbance, SIZE, 500
                    )
                    frozen = [base[at] + float(linear[t - 1]) for at, t in enumerate(CURVE)]
                    rows.append(setting | _curve(points, adaptation, disturbance, effort) | {"frozen": frozen})
    return {"times": list(CURVE), "rows": rows}


def regimes(reset: Reset, effort: Effort, generator: torch.Generator) -> dict[str, OperatingPoints]:
    """One cell each; see `growth`."""
    dynamics = Dynamics(TAU, reset=reset)
    half = torch.tensor([0.5])
    sizes = (effort.neurons, effort.steps // 4, generator)
    return {
        "narrow": operating_points(half, torch.tensor([0.5]), dynamics, *sizes),
        "wide": operating_points(half, torch.tensor([2.0]), dynamics, *sizes),
        "saturated": measured(torch.tensor([[2.0]]).double(), torch.tensor([[0.06]]).double(), dynamics, *sizes),
    }


def disturbed(
    disturbance: Disturbance, like: Tensor, size: float, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """d[t], independent per neuron.  [C, N]"""
    value = torch.full_like(like, size if disturbance is Disturbance.CONSTANT else 0.0)

    def at(step: int) -> Tensor:
        nonlocal value
        if disturbance is not Disturbance.CONSTANT:
            drawn = size * torch.randn(like.shape, generator=generator, dtype=like.dtype)
            value = drawn if disturbance is Disturbance.WHITE else value + drawn
        return value

    return at


def _curve(
    points: OperatingPoints, adaptation: float, disturbance: Disturbance | None, effort: Effort
) -> dict[str, Any]:
    seed = 100 * effort.seed + 7  # the same noise for every k and disturbance of a regime
    added = None
    if disturbance is not None:
        added = disturbed(disturbance, points.state.membrane, SIZE, torch.Generator().manual_seed(seed + 1))
    currents = points.currents(CURVE[-1], torch.Generator().manual_seed(seed), added)
    means, halves, rate, shift = [], [], 0.0, 0.0
    for t, (step, state) in enumerate(
        run(currents, points.state, points.signature, Feedback(adaptation), points.dynamics)
    ):
        if t + 1 in CURVE:
            mean, half = mean_and_half_width((step.membrane - points.signature).square()[0])
            means.append(mean)
            halves.append(half)
        if t >= CURVE[-1] - 100:
            rate += float(step.spikes.mean()) / 100
        shift = float((state.threshold - points.dynamics.threshold).abs().mean())
    return {
        "disturbance": None if disturbance is None else disturbance.value,
        "mean": means,
        "half_width": halves,
        "rate_at_end": rate,
        "threshold_shift_at_end": shift,
    }
