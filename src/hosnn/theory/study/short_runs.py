"""T = 5 as published: a population of neurons with images as inputs, its signature, and small disturbances."""

from typing import Any

import torch
from torch import Tensor

from hosnn.spiking.coding import encode_constant
from hosnn.spiking.state import Dynamics, Reset
from hosnn.theory.growth import Disturbance
from hosnn.theory.population import LIF, Feedback, advance, resting_population
from hosnn.theory.study.effort import Effort, Rows, mean_and_half_width
from hosnn.theory.study.growth import SIZE, disturbed
from hosnn.theory.study.recursion import PUBLISHED

STEPS = 5
IMAGES = 400
SPREAD = 0.5
"""Standard deviation over images of a neuron's input current."""


def short_runs(effort: Effort) -> dict[str, Any]:
    """Errors over 5 steps, per reset, disturbance and k: mean over neurons and images, 95 % band over neurons.

    Neuron n gets the current c (1 - (1 - 1/τ_s)^t) with c ~ N(m_n, .5²) for each image and m_n evenly from 0 to 1.5;
    τ_m = 5, τ_s = 3.  Its signature is the mean of LIF's u[t] over the images, as `calibrate` records it.  Each row has

    error       E[(u - u*)²] under the disturbance, mean over the 5 steps
    difference  E[(u - u')²], u' the same neuron's membrane on the same image without the disturbance
    """
    rows: Rows = []
    for place, reset in enumerate(Reset):
        dynamics = Dynamics(5.0, 3.0, reset=reset)
        images = _images(effort, effort.generator(110 + place))
        clean = _membranes(images, torch.zeros(STEPS, 1, 1), LIF, dynamics)
        signature = clean["membrane"].mean(1, keepdim=True)
        for disturbance in (None, *Disturbance):
            signs = (1.0, -1.0) if disturbance is Disturbance.CONSTANT else (1.0,)
            for sign in signs:
                drawn = _drawn(disturbance, images[0], sign, effort.generator(120 + place))
                for k in (0.0, *PUBLISHED):
                    rows.append(
                        {
                            "reset": reset.value,
                            "disturbance": None if disturbance is None else disturbance.value,
                            "sign": sign,
                            "adaptation": k,
                            **_measured(images, drawn, signature, k, dynamics),
                        }
                    )
    return {"rows": rows}


def _images(effort: Effort, generator: torch.Generator) -> Tensor:
    """Currents  [T, images, neurons]."""
    means = torch.linspace(0, 1.5, effort.neurons, dtype=torch.float64)
    drawn = means + SPREAD * torch.randn(IMAGES, effort.neurons, generator=generator, dtype=torch.float64)
    return encode_constant(drawn, STEPS, 3.0)


def _drawn(disturbance: Disturbance | None, like: Tensor, sign: float, generator: torch.Generator) -> Tensor:
    if disturbance is None:
        return torch.zeros(STEPS, 1, 1, dtype=like.dtype)
    at = disturbed(disturbance, like, sign * SIZE, generator)
    return torch.stack([at(t) for t in range(STEPS)])


def _membranes(
    currents: Tensor, drawn: Tensor, feedback: Feedback, dynamics: Dynamics, signature: Tensor | None = None
) -> dict[str, Tensor]:
    """Membrane before reset and spikes.  [T, images, neurons] each; `signature` is [T, 1, neurons]."""
    state = resting_population(currents.shape[1], currents.shape[2], dynamics)
    membranes, spikes = [], []
    for t, current in enumerate(currents):
        target = torch.zeros_like(current) if signature is None else signature[t]
        step, state = advance(current + drawn[t], state, target, feedback, dynamics)
        membranes.append(step.membrane)
        spikes.append(step.spikes)
    return {"membrane": torch.stack(membranes), "spikes": torch.stack(spikes)}


def _measured(images: Tensor, drawn: Tensor, signature: Tensor, k: float, dynamics: Dynamics) -> dict[str, Any]:
    quiet = _membranes(images, torch.zeros_like(drawn), Feedback(k), dynamics, signature)
    noisy = _membranes(images, drawn, Feedback(k), dynamics, signature)
    error, error_half = mean_and_half_width((noisy["membrane"] - signature).square().mean((0, 1)))
    moved = (noisy["membrane"] - quiet["membrane"]).square()
    difference, difference_half = mean_and_half_width(moved.mean((0, 1)))
    return {
        "error": error,
        "error_half_width": error_half,
        "difference": difference,
        "difference_half_width": difference_half,
        "difference_over_time": [float(value) for value in moved.mean((1, 2))],
        "spikes_changed": float((noisy["spikes"] != quiet["spikes"]).double().mean()),
        "rate": float(noisy["spikes"].mean()),
    }
