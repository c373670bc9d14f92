"""A leak or a bound on the threshold under a constant disturbance, and how much a saturated neuron can reject."""

from typing import Any

import torch

from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory.linear import frozen_rate, responding_rate
from hosnn.theory.population import LIF, Feedback, OperatingPoints, measured, run
from hosnn.theory.study.effort import Effort, Rows, mean_and_half_width
from hosnn.theory.study.growth import SIZE, TAU, regimes

K = 0.2
VARIANTS = {
    "LIF": LIF,
    "as published": Feedback(K),
    "leak 0.9": Feedback(K, retention=0.9),
    "leak 0.5": Feedback(K, retention=0.5),
    "bounds 0.5 to 1.5": Feedback(K, lowest=0.5, highest=1.5),
}
SHARES = (0.5, 0.9, 0.98, 1.02, 1.1)
"""Of the largest disturbance that a saturated neuron can reject."""
SAMPLED = (1, 3, 10, 30, 100, 300, 1000)


def remedies(effort: Effort) -> dict[str, Any]:
    """Thresholds and errors under d = .1, and the largest disturbance that a saturated neuron rejects."""
    rows: Rows = []
    for place, reset in enumerate(Reset):
        generator = effort.generator(70 + place)
        for regime, points in regimes(reset, effort, generator).items():
            for name, feedback in VARIANTS.items():
                rows.append(
                    {
                        "reset": reset.value,
                        "regime": regime,
                        "variant": name,
                        **_under_constant(points, feedback, effort),
                    }
                    | {f"{kind}_error": value for kind, value in _predicted(points, reset, feedback).items()}
                )
    return {"times": [t for t in SAMPLED if t <= effort.steps], "rows": rows, "capacity": capacity(effort)}


def _under_constant(points: OperatingPoints, feedback: Feedback, effort: Effort) -> dict[str, Any]:
    steps = min(effort.steps, SAMPLED[-1])
    currents = points.currents(steps, torch.Generator().manual_seed(effort.seed + 5), lambda _: SIZE)
    errors = torch.zeros_like(points.state.membrane)
    shifts, rate, largest = [], 0.0, 0.0
    for t, (step, state) in enumerate(run(currents, points.state, points.signature, feedback, points.dynamics)):
        shift = (state.threshold - points.dynamics.threshold).abs()
        if t + 1 in SAMPLED:
            shifts.append(float(shift.mean()))
        if t >= 3 * steps // 4:
            errors += (step.membrane - points.signature) / (steps - 3 * steps // 4)
            rate += float(step.spikes.mean()) / (steps - 3 * steps // 4)
            largest = max(largest, float(shift.max()))
    mean, half = mean_and_half_width(errors[0])
    return {
        "mean_shift": shifts,
        "largest_shift": largest,
        "error": mean,
        "error_half_width": half,
        "rate_at_end": rate,
        "undisturbed_rate": float(points.rate),
    }


def _predicted(points: OperatingPoints, reset: Reset, feedback: Feedback) -> dict[str, float | None]:
    """Mean error in the long run by either linearisation; None where it has no limit, or where θ is bounded."""
    k = float(feedback.adaptation)
    rate, sensitivity = float(points.rate), float(points.sensitivity)
    models = {
        "frozen": frozen_rate(TAU, rate, k, reset, feedback.retention),
        "responding": responding_rate(TAU, rate, sensitivity, k, reset, feedback.retention),
    }
    if feedback.highest < float("inf"):
        return dict.fromkeys(models)
    gains = {name: SIZE * model.gain for name, model in models.items()}
    return {name: value if abs(value) < float("inf") else None for name, value in gains.items()}


def capacity(effort: Effort) -> Rows:
    """The saturated soft neuron at k = .01: a constant disturbance is rejected while μ + d < u*, and no further.

    At rate 1 the error is 0 at θ = (μ + d - (1 - a) u*)/a, where the neuron still fires as long as θ < u*.  The
    disturbance rises slowly to its final value, so that the threshold can follow.
    """
    dynamics = Dynamics(TAU, reset=Reset.SOFT)
    drive = torch.full((len(SHARES), 1), 2.0, dtype=torch.float64)
    points = measured(drive, torch.full_like(drive, 0.01), dynamics, 64, effort.steps // 4, effort.generator(91))
    limit = points.signature - points.drive
    final = torch.tensor(SHARES, dtype=torch.float64)[:, None] * limit
    rise = 10 * effort.steps
    errors = torch.zeros_like(drive)
    currents = points.currents(rise + 1000, effort.generator(92), lambda t: final * min(1.0, t / rise))
    for t, (step, _) in enumerate(run(currents, points.state, points.signature, Feedback(0.01), dynamics)):
        if t >= rise + 500:
            errors += (step.membrane - points.signature).mean(1, keepdim=True) / 500
    return [
        {"share": share, "disturbance": float(final[at]), "limit": float(limit[at]), "error": float(errors[at])}
        for at, share in enumerate(SHARES)
    ]
