"""Populations of spiking neurons under a noisy current, with every form of threshold feedback the theory speaks of.

Shapes: C cells (conditions), N neurons of a cell; whatever broadcasts to [C, N] will do for a parameter.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.spiking.dynamics import lif_step
from hosnn.spiking.gradient_rule import GradientRule, bptt
from hosnn.spiking.state import Dynamics, State, Step

RULE: GradientRule = bptt()  # no gradient is taken; the steps ask for a rule


@dataclass(frozen=True)
class Feedback:
    """How the threshold follows the error: θ[t] = clip(θ[0] + ρ (θ[t-1] - θ[0]) + k e[t], lowest, highest).

    adaptation  k                                 number or tensor
    retention   ρ, 1 as published
    lowest      bounds of θ
    highest
    shared      e[t] is the mean error of the cell's N neurons, the same for all: the theory without the noise of a
                single neuron.  As published each has its own.
    """

    adaptation: float | Tensor
    retention: float = 1.0
    lowest: float = -math.inf
    highest: float = math.inf
    shared: bool = False


LIF = Feedback(0.0)


@torch.no_grad()
def advance(
    current: Tensor, state: State, signature: Tensor, feedback: Feedback, dynamics: Dynamics
) -> tuple[Step, State]:
    """One step; with Feedback(k) bit for bit `talif_step`, with k = 0 `lif_step`.

    current  I[t]  [C, N]      signature  u*[t]  broadcasts to [C, N]
    """
    membrane = dynamics.membrane_decay * state.membrane + current
    error = membrane - signature
    if feedback.shared:
        error = error.mean(-1, keepdim=True)
    kept = state.threshold
    if feedback.retention != 1:
        kept = dynamics.threshold + feedback.retention * (kept - dynamics.threshold)
    threshold = (kept + feedback.adaptation * error).clamp(feedback.lowest, feedback.highest)
    return lif_step(current, state._replace(threshold=threshold), dynamics, RULE)


def run(
    currents: Iterator[Tensor], state: State, signature: Tensor, feedback: Feedback, dynamics: Dynamics
) -> Iterator[tuple[Step, State]]:
    """The population step by step; memory does not grow with time.  `signature` is the same at every step."""
    for current in currents:
        step, state = advance(current, state, signature, feedback, dynamics)
        yield step, state


@dataclass(frozen=True)
class OperatingPoints:
    """Stationary LIF populations, one per cell.

    drive        mean current μ                                            [C, 1]
    spread       standard deviation of the current, independent per step   [C, 1]
    signature    u*, the stationary mean of the membrane before reset      [C, 1]
    variance     of the membrane before reset                              [C, 1]
    rate         spikes per step                                           [C, 1]
    sensitivity  h = θ f(θ), f the density of the membrane at threshold    [C, 1]
    state        of the population at the end of the measurement           [C, N]
    """

    dynamics: Dynamics
    drive: Tensor
    spread: Tensor
    signature: Tensor
    variance: Tensor
    rate: Tensor
    sensitivity: Tensor
    state: State = field(repr=False)

    def currents(
        self, steps: int, generator: torch.Generator, added: Callable[[int], Tensor | float] | None = None
    ) -> Iterator[Tensor]:
        """I[t] = μ + spread ξ[t] + added(t) for `steps` steps, each [C, N]."""
        return noisy(self.drive, self.spread, self.state.membrane, steps, generator, added)

    def taken(self, cells: Tensor) -> "OperatingPoints":
        """The cells at these positions, which may repeat, each with the same neurons."""
        names = ("drive", "spread", "signature", "variance", "rate", "sensitivity")
        state = State(*(part[cells] for part in self.state))
        return replace(self, **{name: getattr(self, name)[cells] for name in names}, state=state)

    def repeated(self, times: int) -> "OperatingPoints":
        """Every cell `times` times: cell 0, cell 0, .., cell 1, .."""
        return self.taken(torch.arange(len(self.rate)).repeat_interleave(times))


def noisy(
    drive: Tensor,
    spread: Tensor,
    like: Tensor,
    steps: int,
    generator: torch.Generator,
    added: Callable[[int], Tensor | float] | None = None,
) -> Iterator[Tensor]:
    """Currents with independent Gaussian noise, each in the shape of `like`."""
    for t in range(steps):
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype)
        yield drive + spread * noise + (0.0 if added is None else added(t))


def operating_points(
    rates: Tensor, noise: Tensor, dynamics: Dynamics, neurons: int, steps: int, generator: torch.Generator
) -> OperatingPoints:
    """LIF populations that fire at `rates`, measured over `steps` steps after as many to settle.

    rates  wanted, spikes per step, above 0 and below 1     [C]
    noise  standard deviation that the current's noise alone would give the membrane, in resting thresholds  [C]
    """
    if not bool(((rates > 0) & (rates < 1)).all()):
        raise ConfigError(f"operating_points() got rates {rates.tolist()}; expected numbers above 0 and below 1")
    spread = noise[:, None].double() * math.sqrt(1 - dynamics.membrane_decay**2)
    drive = _drive(rates[:, None].double(), spread, dynamics, generator)
    return measured(drive, spread, dynamics, neurons, steps, generator)


def measured(
    drive: Tensor, spread: Tensor, dynamics: Dynamics, neurons: int, steps: int, generator: torch.Generator
) -> OperatingPoints:
    """LIF populations at a given mean current and noise [C, 1] each, spread > 0, measured as `operating_points`."""
    state = resting_population(len(drive), neurons, dynamics)
    density = 1 / (spread * math.sqrt(2 * math.pi))
    sums = [torch.zeros_like(drive) for _ in range(4)]
    currents = noisy(drive, spread, state.membrane, 2 * steps, generator)
    for t, (step, after) in enumerate(run(currents, state, drive, LIF, dynamics)):
        if t >= steps:
            expected = dynamics.membrane_decay * state.membrane + drive  # the membrane without this step's noise
            at_threshold = density * torch.exp(-((dynamics.threshold - expected) / spread).square() / 2)
            values = (step.membrane, step.membrane.square(), step.spikes, at_threshold)
            for total, value in zip(sums, values, strict=True):
                total += value.mean(1, keepdim=True) / steps
        state = after
    mean, square, rate, height = sums
    rate = rate.clamp(max=1.0)  # a sum of rounded shares
    sensitivity = dynamics.threshold * height
    return OperatingPoints(dynamics, drive, spread, mean, square - mean.square(), rate, sensitivity, state)


def _drive(rates: Tensor, spread: Tensor, dynamics: Dynamics, generator: torch.Generator) -> Tensor:
    """The mean current at which LIF fires at `rates`, by bisection with the same noise at every trial."""
    largest = 2 / (1 - rates) + 8 * spread
    low, high = -largest, largest
    seed = int(torch.randint(2**31, (1,), generator=generator))
    for _ in range(18):
        middle = (low + high) / 2
        state = resting_population(len(rates), 500, dynamics)
        noise = noisy(middle, spread, state.membrane, 250, torch.Generator().manual_seed(seed))
        spikes = [step.spikes.mean(1, keepdim=True) for step, _ in run(noise, state, rates, LIF, dynamics)]
        slower = torch.stack(spikes[50:]).mean(0) < rates
        low, high = torch.where(slower, middle, low), torch.where(slower, high, middle)
    return (low + high) / 2


def resting_population(cells: int, neurons: int, dynamics: Dynamics) -> State:
    """The state before the first step in float64.  [cells, neurons]"""
    zeros = torch.zeros(cells, neurons, dtype=torch.float64)
    return State(zeros, torch.full_like(zeros, dynamics.threshold), zeros)
