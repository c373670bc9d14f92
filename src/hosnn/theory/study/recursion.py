"""The frozen-rate recursion against its own simulation: boundaries, damping, growth."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hosnn.spiking.state import Dynamics, Reset, State
from hosnn.theory.continuous import ContinuousDynamics
from hosnn.theory.growth import Disturbance, limit, mean_square, wiener_slope
from hosnn.theory.linear import Array, frozen_rate
from hosnn.theory.population import LIF, Feedback, advance, resting_population
from hosnn.theory.study.effort import Effort, Rows
from hosnn.theory.timing import random_boundary, regular_boundary

TAUS = (2.0, 3.0, 5.0, 10.0, 20.0)
RATES = (0.1, 0.25, 0.5, 0.75, 1.0)
PUBLISHED = (0.2, 1 / 1.5)
"""k in the authors' code before training: CIFAR, MNIST."""
TIMES = (5, 50, 500, 2000)


def recursion(effort: Effort) -> dict[str, Any]:
    """Everything about the frozen-rate recursion, soft reset."""
    return {
        "boundary": boundary(),
        "timing": timing(),
        "poles": poles(),
        "growth": growth(effort),
        "continuous": continuous(),
    }


def boundary() -> Rows:
    """Both ends of the stable interval of k: by formula, and where simulated impulse responses cease to die out."""
    conditions = [(tau, rate) for tau in TAUS for rate in RATES]
    decay = np.array([1 - 1 / tau for tau, _ in conditions])
    rates = np.array([rate for _, rate in conditions])
    formula = np.array([_interval(tau, rate)[1] for tau, rate in conditions])

    def settles(adaptation: Array) -> Array:
        return _dies_out(decay, rates, adaptation)

    upper = bisect(settles, 0.5 * formula, 2 * formula)
    lower = bisect(settles, 0.1 * formula, -0.1 * formula)
    return [
        {
            "tau": tau,
            "rate": rate,
            "upper": float(formula[at]),
            "simulated_upper": float(upper[at]),
            "upper_deviation": float(abs(upper[at] / formula[at] - 1)),
            "simulated_lower_over_upper": float(lower[at] / formula[at]),
        }
        for at, (tau, rate) in enumerate(conditions)
    ]


def bisect(holds: Callable[[Array], Array], inside: Array, outside: Array, times: int = 30) -> Array:
    """Where `holds`, an array of 0 and 1, changes between values where it is 1 and values where it is 0."""
    for _ in range(times):
        middle = (inside + outside) / 2
        kept = holds(middle) > 0
        inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
    return (inside + outside) / 2


def timing() -> Rows:
    """The upper boundary of k at τ_m = 5 for regular and for independent random spikes, beside the frozen rate's.

    `spiking` is measured on a real neuron with soft reset, at a constant current that makes it fire at that period.
    """
    rows: Rows = []
    for period in (1, 2, 3, 5):
        expected = regular_boundary(5.0, period)
        current = regular_current(5.0, period)
        trials = np.linspace(0.8 * expected, 1.2 * expected, 401)
        settled = _spikes_settle(5.0, current, trials)
        spiking = float(trials[max(0, int(settled.argmin()) - 1)])  # the last before the first that does not settle
        rows.append(
            {
                "period": period,
                "current": current,
                "frozen": _interval(5.0, 1 / period)[1],
                "regular": expected,
                "random": random_boundary(5.0, 1 / period),
                "spiking": spiking,
                "spiking_deviation": abs(spiking / expected - 1),
            }
        )
    return rows


def regular_current(tau_membrane: float, period: int) -> float:
    """The middle of the constant currents at which LIF with a soft reset fires at every period-th step; 2 for 1."""
    if period == 1:
        return 2.0
    dynamics = Dynamics(tau_membrane, reset=Reset.SOFT)
    currents = torch.linspace(1 / tau_membrane, 1.2, 4001, dtype=torch.float64)[:, None]
    state, spikes = resting_population(4001, 1, dynamics), torch.zeros_like(currents)
    for t in range(400 + 60 * period):
        step, state = advance(currents, state, currents, LIF, dynamics)
        spikes += step.spikes if t >= 400 else 0
    return float(currents[spikes == 60].median())


def _spikes_settle(tau_membrane: float, current: float, adaptation: Array, steps: int = 4000) -> NDArray[np.bool_]:
    """Whether real neurons with these k, their thresholds moved by 1e-6 off their cycle, come back to it."""
    dynamics = Dynamics(tau_membrane, reset=Reset.SOFT)
    feedback = Feedback(torch.from_numpy(adaptation)[:, None])
    drive = torch.full((len(adaptation), 1), current, dtype=torch.float64)
    reference = resting_population(1, 1, dynamics)
    for _ in range(1000):
        _, reference = advance(drive[:1], reference, drive[:1], LIF, dynamics)
    moved = State(*(part.expand_as(drive) for part in reference))
    moved = moved._replace(threshold=moved.threshold + 1e-6)
    shifts = []
    for _ in range(steps):
        clean, reference = advance(drive[:1], reference, drive[:1], LIF, dynamics)
        _, moved = advance(drive, moved, clean.membrane, feedback, dynamics)
        shifts.append(moved.threshold[:, 0].numpy() - dynamics.threshold)
    return _shrinks(np.stack(shifts), large=1e-3)


def _interval(tau: float, rate: float) -> tuple[float, float]:
    interval = frozen_rate(tau, rate, 1.0).stable_adaptation
    assert interval is not None  # soft reset and a rate above 0
    return interval


def _dies_out(decay: Array, rates: Array, adaptation: Array, steps: int = 4000) -> Array:
    """Whether the response to an impulse shrinks, for arrays of conditions; written out apart from `ErrorDynamics`."""
    error, shift = np.ones_like(decay), 1.0 * adaptation
    shifts = []
    for _ in range(steps):
        error = decay * (error - rates * shift)
        shift = np.clip(shift + adaptation * error, -1e9, 1e9)
        shifts.append(shift)
    return _shrinks(np.stack(shifts)).astype(np.float64)


def _shrinks(values: Array, small: float = 1e-12, large: float = 1e8) -> NDArray[np.bool_]:
    """Whether the root mean square over the last quarter of time is no larger than over the second.

    Below `small` it is taken to be rounding, from `large` on a runaway whatever came before.  [T, ...] -> [...]
    """
    quarter = len(values) // 4
    second, last = (np.sqrt(np.square(part).mean(0)) for part in (values[quarter : 2 * quarter], values[-quarter:]))
    return np.asarray(((last <= second) & (last < large)) | (last < small))


def poles() -> Rows:
    """Damping at τ_m = 5: the bound of k below which the response does not swing, and the published k beside it."""
    rows = []
    for rate in (0.25, 0.5, 1.0):
        first, second = frozen_rate(5.0, rate, 1.0).overdamped_adaptation
        for adaptation in PUBLISHED:
            dynamics = frozen_rate(5.0, rate, adaptation)
            rows.append(
                {
                    "rate": rate,
                    "adaptation": adaptation,
                    "overdamped_below": first,
                    "alternating_above": second,
                    "damping_ratio": dynamics.damping_ratio,
                    "radius": abs(dynamics.poles[0]),
                    "continuous_overdamped_below": 1 / (4 * 25 * rate),
                    "continuous_damping_ratio": ContinuousDynamics(5.0, rate, adaptation).damping_ratio,
                }
            )
    return rows


def growth(effort: Effort) -> Rows:
    """E[e²] at τ_m = 5, r = .5, k = .2 and size .1: exact, and by Monte Carlo with its standard error."""
    rows = []
    rng = np.random.default_rng(effort.seed)
    samples = 2 * effort.neurons
    for neuron, adaptation in (("LIF", 0.0), ("TA-LIF", 0.2)):
        dynamics = frozen_rate(5.0, 0.5, adaptation)
        for disturbance in Disturbance:
            noise = 0.1 * rng.standard_normal((TIMES[-1], samples))
            drawn = {
                Disturbance.CONSTANT: np.full((TIMES[-1], 1), 0.1),
                Disturbance.WHITE: noise,
                Disturbance.WIENER: noise.cumsum(0),
            }[disturbance]
            squares = np.square(dynamics.respond(drawn)[0])
            exact = mean_square(dynamics, disturbance, 0.1, TIMES[-1])
            final, slope = limit(dynamics, disturbance, 0.1), wiener_slope(dynamics, 0.1)
            rows.append(
                {
                    "neuron": neuron,
                    "disturbance": disturbance.value,
                    "times": list(TIMES),
                    "exact": [float(exact[t - 1]) for t in TIMES],
                    "simulated": [float(squares[t - 1].mean()) for t in TIMES],
                    "standard_error": [
                        float(squares[t - 1].std() / math.sqrt(samples)) if drawn.shape[1] > 1 else 0.0 for t in TIMES
                    ],
                    "limit": final if math.isfinite(final) else None,
                    "slope": slope if disturbance is Disturbance.WIENER else None,
                }
            )
    return rows


def continuous() -> Rows:
    """How the discrete figures approach those of continuous time as τ_m grows with k τ_m² held: white and Wiener."""
    rows = []
    for tau in (5.0, 20.0, 100.0):
        adaptation = 5.0 / tau**2
        discrete, smooth = frozen_rate(tau, 0.5, adaptation), ContinuousDynamics(tau, 0.5, adaptation)
        rows.append(
            {
                "tau": tau,
                "adaptation": adaptation,
                "damping_ratio": discrete.damping_ratio,
                "continuous_damping_ratio": smooth.damping_ratio,
                **{
                    f"{kind.value}_ratio": limit(discrete, kind, 1.0) / smooth.limit(kind, 1.0)
                    for kind in (Disturbance.WHITE, Disturbance.WIENER)
                },
            }
        )
    return rows
