"""Checks of the model where attacks meet it: inside the ball, and in passes with a gradient.

One function per check, called as the check.
"""

from hosnn.checks.model_checks import FAIL_SHARE, FAITHFUL, WARN_SHARE, graded, percentage
from hosnn.results.check import Check, Severity

CLEARLY_FAITHFUL = 0.95
"""In the ball ordinary networks and LIF through BPTT reach 0.99; what hides there, or has too narrow a surrogate, 0.5
to 0.85."""


def zero_gradients_in_ball(share: float, correct: int, points: int) -> Check:
    """Points that are still classified correctly and whose margin has a gradient of exactly zero, or not a number."""
    return Check(
        "zero gradients in the ball",
        graded(share, WARN_SHARE, FAIL_SHARE),
        f"{percentage(share)} of the {correct:,} points of {points:,} that are classified correctly",
        share,
        "Attacks start at random points and follow paths; where the gradient is zero there they do not move, however "
        "good it is at the clean image: attack from clean images, by transfer, or around what switches it off.",
    )


def fidelity_in_ball(fidelity: float, eps: float, correct: int, points: int) -> Check:
    """How often a step along the gradient raises the margin more than a random one, ties counting half."""
    severity: Severity = "pass" if fidelity >= CLEARLY_FAITHFUL else "warn" if fidelity >= FAITHFUL else "fail"
    return Check(
        "fidelity in the ball",
        severity,
        f"beats a random step in {percentage(fidelity)} of trials with steps of {eps:.3g}, from the {correct:,} "
        f"points of {points:,} that are classified correctly",
        fidelity,
        "A step along the gradient should raise the loss more than a random one nearly always (chance: 50 %), at "
        "random points and on the paths of attacks too; if not, the model hides where attacks go, and its robust "
        "accuracy must not be believed: attack it by transfer and from clean images.",
    )


def with_and_without_gradient(share: float, points: int) -> Check:
    """Points whose logits differ between passes with and without a gradient."""
    return Check(
        "with and without gradient",
        graded(share, WARN_SHARE, FAIL_SHARE),
        f"{percentage(share)} of {points:,} points have other logits",
        share,
        "Gradient attacks see passes with a gradient, queries and the verdict passes without; if they differ (by "
        "torch.is_grad_enabled()), attacks fool another model than the one that is judged: make both passes equal.",
    )
