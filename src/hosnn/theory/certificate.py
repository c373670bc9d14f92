"""How many neurons of a layer lie inside the stability interval at the firing rates they were measured at."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.errors import ConfigError, ShapeError
from hosnn.spiking.state import Reset


@dataclass(frozen=True)
class Certificate:
    """Counts of neurons; `inside`, `outside`, `open_loop` and `silent` add up to `neurons`.

    inside     stable by the linearisation that was asked for
    regular    of these, also stable if they fire at even intervals (soft reset; see `timing.regular_boundary`)
    outside    a loop that is closed and not stable
    open_loop  firing, but the threshold acts on nothing: k = 0, or a hard reset at a frozen rate
    silent     never fired: no feedback, no guarantee
    """

    neurons: int
    inside: int
    regular: int
    outside: int
    open_loop: int
    silent: int

    @property
    def share_inside(self) -> float:
        return self.inside / self.neurons

    @property
    def share_silent(self) -> float:
        return self.silent / self.neurons


def certify(
    rates: Tensor,
    adaptation: Tensor,
    tau_membrane: float,
    reset: Reset,
    sensitivity: Tensor | None = None,
    retention: float = 1.0,
) -> Certificate:
    """Sort a layer's neurons by the stability of their linearised error.

    rates        r, measured spikes per step, 0 to 1                                  [*N]
    adaptation   k                                                         broadcasts to [*N]
    sensitivity  h = θ f(θ) of `linear.responding_rate`; None: the rate is frozen (h = 0 in that formula, except that a
                 hard reset then has no feedback at all)                   broadcasts to [*N]
    retention    ρ of the threshold, 1 as published

    A neuron inside is stable in the linear model only; docs/theory.md says what that is worth.
    Raises ShapeError for rates that are empty or outside [0, 1], ConfigError for a τ_m below 1.
    """
    if rates.numel() == 0 or not bool(((rates >= 0) & (rates <= 1)).all()):
        raise ShapeError("certify() got firing rates that are empty or not within [0, 1]; give spikes per time step")
    if not tau_membrane >= 1:
        raise ConfigError(f"certify() got tau_membrane = {tau_membrane!r}; expected a number of time steps >= 1")
    decay = 1 - 1 / tau_membrane
    rates = rates.double()
    k = adaptation.double().expand_as(rates)
    h = torch.zeros_like(rates) if sensitivity is None else sensitivity.double().expand_as(rates)
    hard = reset is Reset.HARD
    carry = decay * (1 - h - (rates if hard else 0))
    loop_gain = k * decay * (-h if hard else rates - h)
    silent = rates == 0
    open_loop = ~silent & (loop_gain == 0)
    stable = (carry * retention).abs() < 1
    stable &= (loop_gain > -(1 - carry) * (1 - retention)) & (loop_gain < (1 + carry) * (1 + retention))
    inside = stable & ~silent & ~open_loop
    left = decay ** (1 / rates.clamp(min=torch.finfo(rates.dtype).tiny))
    regular = inside & (k * decay * (1 - left) < 2 * (1 - decay) * (1 + left))
    return Certificate(
        neurons=rates.numel(),
        inside=int(inside.sum()),
        regular=0 if hard else int(regular.sum()),
        outside=int((~inside & ~silent & ~open_loop).sum()),
        open_loop=int(open_loop.sum()),
        silent=int(silent.sum()),
    )
