"""Checks of the attacks, from numbers of images that they left correct; one function per check, called as the check.

A difference must be more than one image to count, because in a small sample one image is a large share.
"""

from collections.abc import Sequence
from itertools import pairwise

from hosnn.checks.model_checks import WARN_SHARE, graded, percentage
from hosnn.results.check import Check, Severity
from hosnn.results.statistics import wilson

TOLERANCE = 1
"""Images by which rounding and random starts may change a count."""

CONVERGED, UNCONVERGED = 0.005, 0.02
"""Change of accuracy when steps double: half a point hardly matters, two points exceed most claimed differences."""

PANEL_FAIL = 0.03
"""Share of images large enough to change which of two defences ranks higher."""

MASKED_WARN, MASKED_FAIL = 0.002, 0.005
"""Share of images that only attacks without the model's gradient break; more means that gradients are masked."""

SENSITIVE = 0.01
"""Share of images that the best surrogate leaves correct and some other one breaks."""

RISE_FAIL = 0.02
"""A stronger attack that leaves two points more correct is broken, not unlucky."""

SMALL_EFFECT = 0.03
"""If PGD breaks no more than this share of images, the budget is too small to tell it from noise."""

KNOWN_WARN, KNOWN_FAIL = 0.05, 0.25
"""Share of known adversarial points that the attacks miss: above 5 % the check warns, above 25 % it fails."""

FEWEST_KNOWN = 10
"""Images with a known adversarial point; fewer are too few for a conclusion."""

SURVIVORS = 0.01
"""Share of images that may stay correct without a bound: an image of noise may be classified correctly by chance."""

LOST_ON_PATH = 0.01
"""Share of images that PGD may fool on its path and not at its end."""

HALF_WIDTH = 0.035
"""A thousand images, as is usual for slow attacks, give at most 3.1 points."""


def attacks(white_box: int, others: int) -> Check:
    """How many attacks ran: with the model's gradient, and by queries or transfer."""
    return Check(
        "attacks",
        "fail" if white_box + others == 0 else "warn" if white_box == 0 else "pass",
        f"{white_box} with gradients, {others} without",
        float(white_box + others),
        "A model that nothing attacked looks as robust as it is accurate; attacks left out are listed with the reason: "
        "choose a protocol of which some can run, such as standard.",
    )


def panels(broken: int, samples: int) -> Check:
    """Images robust in the worst case but broken by an attack of a panel, which ran on the first `samples` images."""
    share = broken / samples
    severity: Severity = (
        "fail"
        if share > PANEL_FAIL and broken > TOLERANCE
        else "warn"
        if share > MASKED_FAIL and broken > TOLERANCE
        else "pass"
    )
    return Check(
        "panels",
        severity,
        f"their attacks break {broken} of {samples} images ({percentage(share)}) counted as robust in the worst case",
        share,
        "The panels (curves, matrix, search, controls) attack the first images in more ways than the worst case does; "
        "images that only they break show how much too high the worst case still is.",
    )


def ties(tied: int, samples: int) -> Check:
    """Images whose label shares the highest logit with another class, without attack or after one."""
    share = tied / samples
    return Check(
        "ties",
        graded(share, WARN_SHARE, 0.5),
        f"{percentage(share)} of {samples:,} images, clean or attacked",
        share,
        "Where two classes share the highest logit only the order of classes decides, so such an image counts as "
        "misclassified; read out finer values (mean current or membrane instead of few spikes).",
    )


def claimed_successes(denied: int, samples: int) -> Check:
    """Images misclassified in a gradient attack's own pass and not in the verdict's, a pass without gradient."""
    share = denied / samples
    severity: Severity = "pass" if denied <= TOLERANCE else "fail" if share > MASKED_FAIL else "warn"
    return Check(
        "claimed successes",
        severity,
        f"the verdict denies {denied} of {samples} images that a gradient attack had fooled",
        share,
        "An attack stops at an image that fools the model it sees; if the verdict then finds it classified correctly, "
        "the model answers otherwise without a gradient and looks robust: make passes with and without one equal.",
    )


def inside_threat(images: int, clamped: bool) -> Check:
    """The evaluation stops at a result outside its threat, so all results are inside."""
    return Check(
        "inside the threat",
        "pass" if clamped else "warn",
        f"{images:,} attacked images checked" + ("" if clamped else ", pixels may leave their range"),
        float(images),
        "Every attacked image lies inside its ball and in the valid pixel range; without a range attacks use images "
        "that cannot exist, so compare the number only with others obtained that way.",
    )


def more_effort(name: str, effort: str, robust: Sequence[int], samples: int) -> Check:
    """Images left correct by attacks of growing effort: their number may only fall."""
    rise = max((after - before for before, after in pairwise(robust)), default=0)
    severity: Severity = "pass" if rise <= TOLERANCE else "fail" if rise / samples > RISE_FAIL else "warn"
    return Check(
        name,
        severity,
        f"{rise:+d} of {samples} images at worst" if rise > 0 else f"never rises, {samples} images",
        float(rise),
        f"{effort} must never help the defender; if accuracy rises, the attack is faulty: check its steps and starts.",
    )


def accuracy_against_eps(robust: Sequence[int], samples: int) -> Check:
    """Images left correct at growing eps: the larger ball holds the smaller one."""
    return more_effort("accuracy against eps", "A larger budget contains the smaller one and", robust, samples)


def more_steps(robust: Sequence[int], samples: int) -> Check:
    return more_effort("more steps", "More steps of the same attack", robust, samples)


def more_restarts(robust: Sequence[int], samples: int) -> Check:
    return more_effort("more restarts", "More restarts of the same attack", robust, samples)


def single_step(robust: Sequence[int], samples: int) -> Check:
    """Images left correct by FGSM and by PGD: one step, and many within the same ball."""
    return more_effort("single step", "Many steps in place of one", robust, samples)


def unbounded_attack(robust: int, samples: int, classes: int) -> Check:
    """Images left correct without a bound on the perturbation, where an attack can draw any image."""
    share = robust / samples
    above_chance = wilson(robust, samples).low > 1 / classes
    severity: Severity = "fail" if above_chance else "warn" if share > SURVIVORS and robust > TOLERANCE else "pass"
    return Check(
        "unbounded attack",
        severity,
        f"{percentage(share)} of {samples} images still correct",
        share,
        "An attack that may use any image must always succeed; images that stay correct, above all more than chance "
        "allows, show that the attack has no useful gradient, not that the model is robust: try other gradients.",
    )


def convergence(before: int, after: int, past: int, steps: tuple[int, int], samples: int) -> Check:
    """Images left correct by the two longest runs of an attack.

    past  those that only the longest run broke, and that the worst case leaves
    """
    share = past / samples
    severity: Severity = "pass" if share < CONVERGED or past <= TOLERANCE else "fail" if share > UNCONVERGED else "warn"
    return Check(
        "convergence",
        severity,
        f"{100 * (after - before) / samples:+.2g} points from {steps[0]} to {steps[1]} steps of one run, which breaks "
        f"{past} of {samples} images that the worst case leaves",
        share,
        "Once doubling the steps breaks nothing that the worst case leaves, the attacks have done what they can; if it "
        "does, give them more steps before believing the number.",
    )


def random_noise(clean: int, noise: int, attacked: int, samples: int) -> Check:
    """Images correct when clean, after random noise and after PGD within the same ball."""
    by_noise, by_attack = clean - noise, clean - attacked
    severity: Severity = "pass"
    if by_attack - by_noise <= TOLERANCE:
        severity = "warn" if by_attack <= max(TOLERANCE, SMALL_EFFECT * samples) else "fail"
    elif 2 * by_noise > by_attack:
        severity = "warn"
    return Check(
        "random noise",
        severity,
        f"breaks {by_noise}, PGD breaks {by_attack} of {samples} images",
        by_noise / samples,
        "An attack with a useful gradient must break far more images than random noise of the same size; if it does "
        "not its gradients are useless, or if neither breaks any the budget is too small to tell.",
    )


def queries_and_transfer(broken: int, samples: int) -> Check:
    """Images that only queries or transfer broke, after all attacks with the model's own gradient."""
    share = broken / samples
    severity: Severity = (
        "fail" if share > MASKED_FAIL and broken > TOLERANCE else "warn" if share > MASKED_WARN else "pass"
    )
    return Check(
        "queries and transfer",
        severity,
        f"break {broken} of {samples} images ({percentage(share)}) that gradients left",
        share,
        "Attacks that do not use the model's gradient know less and should find nothing new; if they do, gradients are "
        "masked or the attacks that use them too weak, and the true robustness is still lower.",
    )


def surrogates(best: int, together: int, samples: int, candidates: int) -> Check:
    """Images left correct by the best single estimator, and by all together."""
    gap = best - together
    return Check(
        "surrogates",
        "warn" if gap / samples > SENSITIVE and gap > TOLERANCE else "pass",
        f"all {candidates} together break {gap} of {samples} images more than the best one",
        gap / samples,
        "If one surrogate gradient misses images that others break, a result through a single one is too high; count "
        "an image as robust only if it withstands several.",
    )


def last_step(lost: int, samples: int) -> Check:
    """Images misclassified at some step of PGD but not at its last."""
    share = lost / samples
    return Check(
        "last step",
        "warn" if share > LOST_ON_PATH and lost > TOLERANCE else "pass",
        f"{lost} of {samples} images adversarial on the way, not at the end",
        share,
        "An attack that reaches an adversarial image and moves on to one that is not overstates robustness; keep the "
        "best point of the path, and use smaller steps towards the end.",
    )


def binarization_test(broken: int, by_chance: int, samples: int, images: int) -> Check:
    """Images whose known adversarial point the attacks found, and random search found; `samples` of `images` have one.

    Warns if random search finds most of them (the test was too easy) or if few could be made (too small).
    Source: Zimmermann et al. 2022.
    """
    missed = samples - broken
    severity: Severity = "pass"
    if missed > max(TOLERANCE, KNOWN_WARN * samples):
        severity = "fail" if missed > KNOWN_FAIL * samples or broken - by_chance <= TOLERANCE else "warn"
    elif 2 * by_chance > samples or samples < FEWEST_KNOWN:
        severity = "warn"
    return Check(
        "binarization test",
        severity,
        f"finds {broken}, random search {by_chance} of {samples} images' known adversarial points"
        + (f"; none could be made for {images - samples} of {images}" if samples < images else ""),
        broken / samples if samples else float("nan"),
        "In a model changed so that every image has an adversarial point, a strong attack finds it and random search "
        "does not; an attack that misses it is no evidence of robustness elsewhere: use stronger attacks.",
    )


def sample_size(robust: int, samples: int) -> Check:
    """Half the width of Wilson's 95 % interval of the robust accuracy."""
    low, high = wilson(robust, samples)
    half = (high - low) / 2
    return Check(
        "sample size",
        "pass" if half <= HALF_WIDTH else "warn",
        f"±{100 * half:.1f} points at {samples:,} images",
        half,
        "The accuracy on all images may differ by this much by chance; use more images to compare models that are "
        "closer than that.",
    )
