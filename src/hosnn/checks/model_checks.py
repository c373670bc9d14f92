"""Checks of the model, from what `diagnosis` measured; one function per check, called as the check.

Sources: Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018 (1802.00420), Tramer et al. 2020 (2002.08347),
Croce & Hein 2020 (2003.01690), Pintor et al. 2022 (2106.09947).
"""

import math
from dataclasses import replace

from hosnn.protocols.protocol import EOT_SAMPLES
from hosnn.results.check import Check, Severity

WARN_SHARE, FAIL_SHARE = 0.01, 0.10
"""Shares of images above which a check warns and fails: 1 % moves a published digit, 10 % the result."""

REPEATABLE = 1e-4
"""Largest difference of two forward passes, relative to the spread of the logits, that rounding explains."""

BATCH_WARN, BATCH_FAIL, BATCH_CLASS = 0.05, 0.5, 0.02
"""Rounding depends on the batch size and may flip a spike in a few images, but hardly ever changes a class."""

FAITHFUL, USABLE = 0.90, 0.75
"""Useful surrogate gradients beat a random step in 0.96 to 1.00 of trials, much too narrow ones in 0.6 to 0.85."""

DEAD_WARN, DEAD_FAIL = 0.10, 0.50
"""ReLU networks have a few pixels that no unit depends on; a clamped input has whole regions."""

UNMOVED = 0.25
"""Share of inputs.  Inputs of 8 bits change with a step of eps/2 at every usual eps; those of a few levels do not."""

DISTINCT, FEW_VALUES = 0.5, 0.1
"""Real numbers hardly ever coincide: logits with fewer distinct values than half the images lie on a grid, and those
with fewer than a tenth tell hardly more than the class."""

NARROW = 2.0
"""A range of scores that the softmax hardly sees: that of tanh, twice that of a sigmoid.  Of ten scores within it none
gets a probability above 0.46."""

NATURALLY_COARSE = ("hosnn", "foreign")
"""Networks whose logits may be counts of spikes, a grid that hides nothing; `ties` checks what follows from it."""


def graded(value: float, warn: float, fail: float = math.inf) -> Severity:
    """pass up to `warn`, fail above `fail`; not a number fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def percentage(share: float) -> str:
    """A share in percent with three significant digits and the sign, e.g. "0.125 %"."""
    return f"{100 * share:.3g} %"


def downgraded(check: Check, reason: str) -> Check:
    """A failed check as a warning, with the reason why the attacks avoided its cause; other checks unchanged."""
    if check.severity != "fail":
        return check
    return replace(check, severity="warn", figure=f"{check.figure}; {reason}")


def gradient(reaches_input: bool) -> Check:
    """Whether autograd finds a path from the scores to the input."""
    return Check(
        "gradient",
        "pass" if reaches_input else "fail",
        "reaches the input" if reaches_input else "does not reach the input",
        float(reaches_input),
        "Without a gradient from scores to pixels no gradient attack can work, so only attacks by queries and by "
        "transfer say anything; let the gradient through (no detach, no_grad or conversion on the way).",
    )


def zero_gradients(share: float, samples: int) -> Check:
    """Images whose margin has a gradient of exactly zero, or not a number."""
    return Check(
        "zero gradients",
        graded(share, WARN_SHARE, FAIL_SHARE),
        f"{percentage(share)} of {samples} images",
        share,
        "Where the gradient is zero or not a number an attack does not move, which looks like robustness; attack "
        "through a wider surrogate, or around the operation that has no derivative.",
    )


def saturated_loss(share: float, samples: int) -> Check:
    """Images whose cross-entropy has lost its gradient in float32 while the margin still has one."""
    return Check(
        "saturated loss",
        graded(share, WARN_SHARE, FAIL_SHARE),
        f"{percentage(share)} of {samples} images",
        share,
        "The cross-entropy of a very confident model rounds to a flat surface although the model itself is not flat; "
        "attack a scale-invariant loss (DLR, margin), or divide the logits.",
    )


def saturated_softmax(share: float, samples: int) -> Check:
    """Images whose highest probability is exactly 1 in float32."""
    return Check(
        "saturated softmax",
        graded(share, 0.5),
        f"highest probability is 1 on {percentage(share)} of {samples} images",
        share,
        "If the softmax rounds to 1 the logits are scaled so large that losses on probabilities lose their gradient; "
        "attack a scale-invariant loss (DLR, margin), or divide the logits.",
    )


def range_of_scores(widest: float, samples: int, scale_free: bool, spiking: str) -> Check:
    """Scores so near each other that cross-entropy pushes all wrong classes alike, not the nearest.

    widest      largest difference of two scores of one image
    scale_free  the worst case has an attack whose loss does not depend on the scale of the scores
    """
    # The rates of output neurons lie in [0, 1] by nature, and training has fitted the network to their softmax.
    narrow = not widest > NARROW and spiking not in NATURALLY_COARSE
    figure = f"the scores of an image lie within {widest:.3g} of each other, on {samples} images"
    return Check(
        "range of scores",
        "warn" if narrow and not scale_free else "pass",
        f"{figure}; some attacks used scale-invariant losses" if narrow and scale_free else figure,
        widest,
        "Cross-entropy of scores in a narrow range (nn.Sigmoid or nn.Tanh at the end, probabilities) follows all wrong "
        "classes at once and flatters the model; return the values before that function, or evaluate by quick or "
        "standard, whose losses have no scale.",
    )


def zero_budget(share: float, samples: int) -> Check:
    """Images that an attack at eps = 0 changes."""
    return Check(
        "eps = 0",
        "pass" if share == 0 else "fail",
        f"{percentage(share)} of {samples} images changed",
        share,
        "With no budget an attack must return each image bit for bit; if it does not, attack and threat disagree on "
        "what may be changed, or pixels lie outside the valid range.",
    )


def randomness(difference: float) -> Check:
    """Difference of two forward passes with different random numbers, relative to the spread of the logits."""
    return Check(
        "randomness",
        graded(difference, REPEATABLE),
        f"two forwards differ by {difference:.2g} of the logits' spread",
        difference,
        "A model that answers the same image differently has noisy gradients, and a single try looks like robustness; "
        f"gradient attacks here follow the mean of {EOT_SAMPLES} forward passes (EOT); compare with EOT results only.",
    )


def state_between_calls(difference: float, reset_call: str = "") -> Check:
    """Difference of forward passes of one batch, before and after other batches, with equal random numbers.

    reset_call  how the library of the model's layers puts them at rest; empty if none is known
    """
    remedy = f"call {reset_call} first in forward" if reset_call else "start every call from rest"
    return Check(
        "state between calls",
        "pass" if difference <= REPEATABLE else "fail",
        f"forwards differ by {difference:.2g} of the logits' spread",
        difference,
        "The answer must depend on the image alone; if earlier calls change it (a membrane not reset, or random "
        f"numbers from a generator of the model's own), {remedy} and seed from torch.",
    )


def batch(logits: float, predictions: float, samples: int) -> Check:
    """Images whose logits, and whose class, change with batch size and order."""
    severity: Severity = "fail" if predictions > BATCH_CLASS else graded(logits, BATCH_WARN, BATCH_FAIL)
    return Check(
        "batch",
        severity,
        f"{percentage(predictions)} of {samples} images change class, {percentage(logits)} logits",
        logits,
        "An image's answer must not depend on what else is in the batch or in which order; if it does (batch "
        "statistics in eval mode), attacked images defend each other: use stored statistics.",
    )


def coarse_logits(distinct: float, dtype: str, fits_16_bits: bool, spiking: str) -> Check:
    """Logits in half precision, or on a grid.

    distinct      different values over images, in the class that has most, as a share of the images
    fits_16_bits  every logit fits into a half-precision number
    """
    grid = spiking not in NATURALLY_COARSE
    coarse = fits_16_bits or (distinct < DISTINCT and grid)
    return Check(
        "coarse logits",
        "fail" if distinct < FEW_VALUES and grid else "warn" if coarse else "pass",
        f"{dtype}{' values that fit into 16 bits' if fits_16_bits and dtype == 'float32' else ''}, "
        f"{percentage(distinct)} of values distinct",
        distinct,
        "Rounded logits hide small changes from attacks by queries and from losses, and create ties; evaluate with "
        "float32 logits that are not rounded.",
    )


def train_and_eval_mode(outputs: float, gradients: float, samples: int) -> Check:
    """Images with other logits, or another gradient, in train mode (of all modules but dropout and normalisation).

    NaN: the model gives no logits in train mode.
    """
    worst = max(outputs, gradients)
    figure = f"{percentage(outputs)} of {samples} images have other logits, {percentage(gradients)} another gradient"
    return Check(
        "train and eval mode",
        "warn" if math.isnan(worst) else graded(worst, WARN_SHARE),
        "could not be measured: no logits in train mode" if math.isnan(worst) else figure,
        worst,
        "Apart from dropout and normalisation a network should compute the same in both modes; if thresholds adapt or "
        "surrogates exist in one mode only, training saw another model, or attacks see another gradient.",
    )


def gradient_fidelity(fidelity: float, eps: float) -> Check:
    """How often a step along the gradient raises the loss more than a random step of the same size."""
    severity: Severity = "pass" if fidelity >= FAITHFUL else "warn" if fidelity >= USABLE else "fail"
    return Check(
        "gradient fidelity",
        severity,
        f"beats a random step in {percentage(fidelity)} of trials at eps = {eps:.3g}",
        fidelity,
        "A step along the gradient should raise the loss more than a random one nearly always (chance: 50 %); if not, "
        "the gradient misleads attacks: use another surrogate, or attacks without gradients.",
    )


def dead_pixels(share: float) -> Check:
    """Pixels with a gradient of exactly zero although moving them by eps changes the logits."""
    return Check(
        "dead pixels",
        graded(share, DEAD_WARN, DEAD_FAIL),
        f"{percentage(share)} of pixels",
        share,
        "A gradient attack never moves pixels that matter but have no gradient; look for clamps at the input and "
        "attack around them, or start at random points.",
    )


def rounded_input(first: float, later: float = 0.0) -> Check:
    """Inputs of the first layers with weights that stay the same to the bit when every pixel moves by eps/2.

    first, later  share in the first layer, and the largest share in the layers after it
    """
    share = max(first, later)
    return Check(
        "rounded input",
        graded(share, UNMOVED),
        f"{percentage(share)} of inputs of {'the first layer' if first == share else 'a later layer'} unmoved by eps/2",
        share,
        "If small moves of pixels do not arrive at the first layers (rounding, clamping), gradients before them mean "
        "nothing; replace that step by the identity in the backward pass of attacks (BPDA).",
    )


def copies(state: str, estimators: bool) -> Check:
    """Whether a copy of the model, where one can be made, answers as the model does.

    state       `Network.copies`
    estimators  gradient estimators apply to the model; they differentiate a copy
    """
    differs = state == "different"
    return Check(
        "copies",
        "pass" if not differs else "fail" if estimators else "warn",
        "a copy gives other answers" if differs else "answer alike" if state == "equal" else f"none used ({state})",
        float(differs),
        "Several workers, and gradient estimators, use copies of the model; one that answers differently (layers that "
        "keep state outside themselves, or copy only part of it) is another network: then images are attacked one "
        "block at a time, on the model itself.",
    )


def gradient_estimators(spiking: str, evidence: str = "") -> Check:
    """Whether gradient estimators apply to the model's spikes; `evidence` says which they do not apply to."""
    foreign = spiking == "foreign"
    figure = {"foreign": "spikes, but not from hosnn layers", "hosnn": "hosnn layers", "none": "no spikes seen"}
    words = figure.get(spiking, "spikes not ruled out" if evidence else "unknown")
    return Check(
        "gradient estimators",
        "warn" if foreign or evidence else "pass",
        f"{words}: {evidence}" if evidence else words,
        float(not (foreign or evidence)),
        "Spikes of foreign layers can only be differentiated by the gradient of their own library, which makes the "
        "evaluation weaker; convert them to hosnn layers so that every estimator applies.",
    )
