"""What the checks of the model need, measured on a few images: can its answers and gradients be relied on?

Shapes: x [n, ...] in [0, 1], y [n], logits [n, K].  Nothing here changes the model's modes, the global random numbers
or a count of passes.  Images go in blocks of 50; all of it costs about 85 forwards and 8 backwards per image.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.checks.ball_probe import BallProbe, probe_ball
from hosnn.checks.copies import compare_copy
from hosnn.checks.dead_pixels import dead_pixels
from hosnn.checks.fidelity import best_fidelity, run_trials
from hosnn.checks.foreign_libraries import reset_call
from hosnn.checks.measurements import (
    BLOCK,
    fraction,
    input_gradients,
    noticeably_different,
    relative_difference,
    seeded_scores,
    without_gradient,
    without_side_effects,
)
from hosnn.checks.model_checks import FAITHFUL, REPEATABLE, WARN_SHARE
from hosnn.checks.rounding import unmoved_inputs
from hosnn.estimators import with_rule
from hosnn.nn.layers import TimeDropout
from hosnn.nn.neurons import neurons
from hosnn.rng import SampleRandom
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.losses import cross_entropy, margin
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt

TRIALS = 4
"""Random steps per image that the step along the gradient is compared with."""

SINGLE_IMAGES = 16
"""Images that are also passed through the model one by one."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was measured on `samples` images.

    None: could not be measured (no gradient; answers that differ from call to call; not an nn.Module).

    Shares of images, in [0, 1]:
    saturated_softmax       the highest probability is 1 in float32
    changed_without_budget  an attack at eps = 0 changes the image
    zero_gradients          the margin's gradient is exactly zero, or not a number
    saturated_loss          the cross-entropy has no gradient where the margin has one
    batch_logits, batch_classes           logits, or the class, change with batch size and order
    training_logits, training_gradients   other logits, or another gradient, in train mode; NaN: no logits there

    Other shares:
    score_range      largest difference of two scores of one image; None for two classes, whose losses agree
    distinct_logits  number of distinct logits of the class that has most, over the number of images
    fidelity         trials in which a gradient step beats a random one, at the size `fidelity_eps`
    bptt_fidelity    the same through full BPTT; only for hosnn layers whose own gradient is of little use
    dead_pixels      pixels without a gradient that change the logits when they move by eps
    unmoved_inputs   inputs of the first layer that stay the same when all pixels change
    unmoved_later    the same of the layers after it, without values at which activations rest

    inside, inside_bptt  the gradient inside the ball, of the model and, as for bptt_fidelity, through full BPTT

    Differences of logits, relative to their spread:
    randomness     between forward passes with different random numbers
    carried_state  between passes before and after others, with equal random numbers

    reset_call  how the spiking library of the model's layers puts them at rest; empty if none is known

    has_gradient, logits_dtype, fits_16_bits  whether autograd reaches the input; the logits' type, and whether all of
                                              them fit into half precision
    """

    samples: int
    has_gradient: bool
    saturated_softmax: float
    score_range: float | None
    changed_without_budget: float
    randomness: float
    carried_state: float
    logits_dtype: str
    fits_16_bits: bool
    distinct_logits: float
    reset_call: str = ""
    zero_gradients: float | None = None
    saturated_loss: float | None = None
    batch_logits: float | None = None
    batch_classes: float | None = None
    training_logits: float | None = None
    training_gradients: float | None = None
    fidelity: float | None = None
    fidelity_eps: float = math.nan
    bptt_fidelity: float | None = None
    dead_pixels: float | None = None
    unmoved_inputs: float | None = None
    unmoved_later: float | None = None
    inside: BallProbe | None = None
    inside_bptt: BallProbe | None = None


def diagnose(model: Model, x: Tensor, y: Tensor, threat: Threat, seed: int = 0) -> Diagnosis:
    """Measure all of it on x [n, ...] with labels y [n]; 100 to 200 images are enough."""
    rng = SampleRandom(seed, torch.arange(len(y))).fold("probes")
    with without_side_effects(model):
        logits = seeded_scores(model, x, seed)
        repeatability = _repeatability(model, x[:BLOCK], seed)
        repeatable = max(repeatability.values()) <= REPEATABLE
        gradients = input_gradients(model, x, y, margin)
        gradient_shares = {} if gradients is None else _gradient_shares(model, x, y, gradients, threat, rng)
        halves = (torch.half, torch.bfloat16)
        inside = None if gradients is None else probe_ball(model, x, y, gradients.nan_to_num(), threat, rng)
        module = model if repeatable and isinstance(model, nn.Module) else None
        return Diagnosis(
            samples=len(y),
            has_gradient=gradients is not None,
            saturated_softmax=fraction(logits.float().softmax(1).amax(1) == 1),
            score_range=float((logits.amax(1) - logits.amin(1)).max()) if logits.shape[1] > 2 else None,
            changed_without_budget=_changed_without_budget(model, x, y, threat, rng, gradients is not None),
            logits_dtype=str(logits.dtype).removeprefix("torch."),
            fits_16_bits=any(torch.equal(logits.to(half).to(logits.dtype), logits) for half in halves),
            distinct_logits=max(len(torch.unique(column)) for column in logits.unbind(1)) / len(y),
            reset_call=reset_call(model),
            **repeatability,
            **(_batch_shares(model, x, logits, seed) if repeatable else {}),
            **(_training_shares(model, x, y, logits, gradients, seed) if repeatable else {}),
            **gradient_shares,
            **_through_bptt(model, x, y, threat, rng, gradient_shares, inside),
            inside=inside,
            **(unmoved_inputs(module, x, threat) if module else {}),
        )


def _repeatability(model: Model, x: Tensor, seed: int) -> dict[str, Any]:
    """`randomness` and `carried_state`, by passes of one batch with a pass of another batch between them.

    x  one block [n, ...]: layers that keep state drop it, or draw it anew, when the shape of the batch changes
    """
    logits, again = (seeded_scores(model, x, seed) for _ in range(2))
    seeded_scores(model, 1 - x.flip(0), seed)
    later = seeded_scores(model, x, seed)
    state = max(relative_difference(logits, again), relative_difference(logits, later))
    if state > REPEATABLE:  # the answers differ anyway, so nothing can be said about random numbers
        return {"carried_state": state, "randomness": 0.0}
    return {"carried_state": state, "randomness": relative_difference(later, seeded_scores(model, x, seed + 1))}


def _batch_shares(model: Model, x: Tensor, logits: Tensor, seed: int) -> dict[str, Any]:
    """The same images in small batches, in reverse order, and some of them alone."""
    all_images = torch.arange(len(x), device=x.device)
    other_class, other_logits = (torch.zeros(len(x), dtype=torch.bool, device=logits.device) for _ in range(2))
    for chosen, block in ((all_images, 7), (all_images.flip(0), BLOCK // 2 + 1), (all_images[:SINGLE_IMAGES], 1)):
        try:
            regrouped = seeded_scores(model, x[chosen], seed, block)
        except RuntimeError:  # a model that takes one batch size only depends on the batch
            return {"batch_logits": 1.0, "batch_classes": 1.0}
        other_class[chosen] |= regrouped.argmax(1) != logits[chosen].argmax(1)
        other_logits[chosen] |= noticeably_different(regrouped, logits[chosen], logits)
    return {"batch_logits": fraction(other_logits), "batch_classes": fraction(other_class)}


def _training_shares(
    model: Model, x: Tensor, y: Tensor, logits: Tensor, gradients: Tensor | None, seed: int
) -> dict[str, Any]:
    """All modules but dropout and normalisation in train mode, on a copy, because train mode may change state.

    Nothing of a model whose copy gives other answers in eval mode, too.
    """
    if not isinstance(model, nn.Module) or compare_copy(model, x[:BLOCK]) in ("different", "impossible"):
        return {}
    copied = copy.deepcopy(model)
    for module in copied.modules():
        module.training = not _is_meant_to_differ(module)
    try:
        in_training, other_seed = (seeded_scores(copied, x, number) for number in (seed, seed + 1))
        if relative_difference(in_training, other_seed) > REPEATABLE:  # functional dropout, which is meant to be random
            return {}
        in_training_gradients = input_gradients(copied, x, y, margin)
    except Exception:  # a foreign model may return its loss, or need labels, in train mode
        return {"training_logits": math.nan, "training_gradients": math.nan}
    if in_training_gradients is None or gradients is None:
        changed_gradients = float((in_training_gradients is None) != (gradients is None))
    else:
        cosine = nn.functional.cosine_similarity(_rescaled(in_training_gradients), _rescaled(gradients))
        changed_gradients = fraction((cosine < 0.9) & (in_training_gradients.flatten(1) != gradients.flatten(1)).any(1))
    changed_logits = noticeably_different(in_training, logits, logits)
    return {"training_logits": fraction(changed_logits), "training_gradients": changed_gradients}


def _is_meant_to_differ(module: nn.Module) -> bool:
    """Whether train mode is meant to change what the module does: dropout, normalisation, layers that hold either."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RNNBase, nn.MultiheadAttention)
    return isinstance(module, (*kinds, TimeDropout)) or "drop" in type(module).__name__.lower()


def _gradient_shares(
    model: Model, x: Tensor, y: Tensor, gradients: Tensor, threat: Threat, rng: SampleRandom
) -> dict[str, Any]:
    """`zero_gradients`, `saturated_loss`, `fidelity`, `fidelity_eps` and `dead_pixels` of a model with a gradient."""
    flat, zero = gradients.flatten(1), without_gradient(gradients)
    of_cross_entropy = input_gradients(model, x, y, cross_entropy)
    saturated = torch.zeros_like(zero)
    if of_cross_entropy is not None:
        # Where cross-entropy has no gradient for most pixels, a sign step is hardly better than chance.
        lost = (of_cross_entropy.flatten(1) == 0) & (flat != 0)
        saturated = lost.sum(1) > (flat != 0).sum(1) / 2
    shares = {"zero_gradients": fraction(zero), "saturated_loss": fraction(saturated & ~zero)}
    shares |= _fidelity(model, x, y, gradients.nan_to_num(), threat, rng)
    if not bool(zero.all()):
        shares["dead_pixels"] = dead_pixels(model, x[~zero], flat[~zero] == 0, min(threat.ball.eps, 1.0))
    return shares


def _through_bptt(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    rng: SampleRandom,
    own: dict[str, float],
    inside: BallProbe | None,
) -> dict[str, Any]:
    """The gradient of full BPTT with an ordinary surrogate, where the model's own is not good enough."""
    faithful = own.get("fidelity", 0.0) >= FAITHFUL and own.get("zero_gradients", 1.0) <= WARN_SHARE
    if inside is not None and inside.fidelity is not None and inside.zero_gradients is not None:
        faithful &= inside.fidelity >= FAITHFUL and inside.zero_gradients <= WARN_SHARE
    if faithful or not isinstance(model, nn.Module) or not neurons(model):
        return {}
    bptt_model = with_rule(model, bptt())
    gradients = input_gradients(bptt_model, x, y, margin)
    if gradients is None:
        return {}
    gradients = gradients.nan_to_num()
    return {
        "bptt_fidelity": _fidelity(bptt_model, x, y, gradients, threat, rng).get("fidelity"),
        "inside_bptt": probe_ball(bptt_model, x, y, gradients, threat, rng),
    }


def _fidelity(
    model: Model, x: Tensor, y: Tensor, gradients: Tensor, threat: Threat, rng: SampleRandom
) -> dict[str, float]:
    """How often a step along the gradient raises the margin more than random steps of its size, ties counting half.

    Trials in which neither changes anything do not count.  Of several step sizes, the one with the highest fidelity.
    """
    trials = run_trials(model, x, y, gradients, threat, rng, TRIALS)
    best = best_fidelity({size: found.wins[found.changed] for size, found in trials.items()})
    return {} if best is None else {"fidelity": best.share, "fidelity_eps": best.eps}


def _changed_without_budget(
    model: Model, x: Tensor, y: Tensor, threat: Threat, rng: SampleRandom, gradient: bool
) -> float:
    """Share of images that an attack at eps = 0 changes: PGD, or noise for a model without a gradient."""
    no_budget = threat.with_eps(0.0)
    attack = PGD(no_budget, steps=2, keep_best=False) if gradient else Noise(no_budget)
    first = torch.arange(min(len(x), BLOCK))
    return fraction((attack(model, x[first], y[first], rng.subset(first)) != x[first]).flatten(1).any(1))


def _rescaled(gradients: Tensor) -> Tensor:
    """Each row over its largest entry, so that squares do not underflow."""
    flat = gradients.nan_to_num().flatten(1)
    return flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
