"""Checks of what attacks achieved, from numbers of images that they left correct.

A small sample moves by single images, so a difference must be more than one image to count.
"""

from collections.abc import Sequence
from itertools import pairwise

from hosnn.checks.model_checks import percent
from hosnn.results.check import Check, Severity
from hosnn.results.statistics import wilson

SINGLE = 1
"""Images by which rounding and random starts may change a count."""

CONVERGED, UNCONVERGED = 0.005, 0.02
"""Change of accuracy when steps double: half a point is the last digit printed, two points exceed most claims."""

PANEL_FAIL = 0.03
"""Share of images by which a ranking of defences may turn."""

MASKED_WARN, MASKED_FAIL = 0.002, 0.005
"""Share of images that only attacks without the model's gradient break; more means that gradients are masked."""

SENSITIVE = 0.01
"""Share of images that the best surrogate leaves correct and another breaks."""

RISE_FAIL = 0.02
"""A stronger attack that leaves two points more correct is broken, not unlucky."""

TOO_FEW = 0.03
"""If PGD breaks no larger share than this the budget is too small to tell it from noise."""

KNOWN_WARN, KNOWN_FAIL = 0.05, 0.25
"""Share of known adversarial points that the attacks miss: one in twenty is no luck any more, one in four no attack."""

FEW_KNOWN = 10
"""Fewer images with a known adversarial point say nothing."""

SPARED = 0.01
"""Share that may survive without a bound: an image of pixels without meaning can be classified by chance."""

HALF_WIDTH = 0.035
"""A thousand images, as the field uses for slow attacks, leave 3.1 points at most."""


def attacks_run(white_box: int, others: int) -> Check:
    """How many attacks ran: with the model's gradient, and by queries or transfer."""
    return Check(
        "attacks",
        "fail" if white_box + others == 0 else "warn" if white_box == 0 else "pass",
        f"{white_box} with gradients, {others} without",
        float(white_box + others),
        "A model that nothing attacked looks as robust as it is accurate; attacks left out are listed with the reason: "
        "choose a protocol of which some can run, such as standard.",
    )


def broken_by_panels(broken: int, samples: int) -> Check:
    """Images robust in the worst case but broken by an attack of a panel, which ran on the first `samples` images."""
    share = broken / samples
    severity: Severity = (
        "fail"
        if share > PANEL_FAIL and broken > SINGLE
        else "warn"
        if share > MASKED_FAIL and broken > SINGLE
        else "pass"
    )
    return Check(
        "panels",
        severity,
        f"their attacks break {broken} of {samples} images ({percent(share)}) that the worst case counts as robust",
        share,
        "Curves, matrix and search attack the first images in more ways than the worst case does; what they break "
        "beyond it tells by how much the worst case is still too high.",
    )


def inside_threat(images: int, clamped: bool) -> Check:
    """The evaluation stops at a result outside its threat, so all results are inside."""
    return Check(
        "inside the threat",
        "pass" if clamped else "warn",
        f"{images:,} attacked images checked" + ("" if clamped else ", pixels may leave their range"),
        float(images),
        "Every attacked image lies inside its ball and in the valid pixel range; without a range attacks use images "
        "that cannot exist, so compare such a number with its like only.",
    )


def more_effort(name: str, effort: str, robust: Sequence[int], samples: int) -> Check:
    """Images left correct by attacks of growing effort: they may only fall."""
    rise = max((after - before for before, after in pairwise(robust)), default=0)
    severity: Severity = "pass" if rise <= SINGLE else "fail" if rise / samples > RISE_FAIL else "warn"
    return Check(
        name,
        severity,
        f"{rise:+d} of {samples} images at worst" if rise > 0 else f"never rises, {samples} images",
        float(rise),
        f"{effort} must never help the defender; if accuracy rises the attack goes astray: mend its steps or starts.",
    )


def growing_eps(robust: Sequence[int], samples: int) -> Check:
    """Images left correct at growing eps: the larger ball holds the smaller one."""
    return more_effort("accuracy against eps", "A larger budget contains the smaller one and", robust, samples)


def more_steps(robust: Sequence[int], samples: int) -> Check:
    return more_effort("more steps", "More steps of the same attack", robust, samples)


def more_restarts(robust: Sequence[int], samples: int) -> Check:
    return more_effort("more restarts", "More restarts of the same attack", robust, samples)


def unbounded(robust: int, samples: int, classes: int) -> Check:
    """Images left correct without a bound on the perturbation, where an attack can draw any image."""
    share = robust / samples
    above_chance = wilson(robust, samples).low > 1 / classes
    severity: Severity = "fail" if above_chance else "warn" if share > SPARED and robust > SINGLE else "pass"
    return Check(
        "unbounded attack",
        severity,
        f"{percent(share)} of {samples} images still correct",
        share,
        "An attack that may use any image must always succeed; what remains, above chance all the more, shows an "
        "attack without a useful gradient, not a robust model: try other gradients.",
    )


def converged(before: int, after: int, steps: tuple[int, int], samples: int) -> Check:
    """Images left correct by the two longest runs of an attack."""
    drop = before - after
    moved = abs(drop) / samples
    severity: Severity = (
        "pass" if moved < CONVERGED or abs(drop) <= SINGLE else "fail" if moved > UNCONVERGED else "warn"
    )
    return Check(
        "convergence",
        severity,
        f"{-100 * drop / samples:+.2g} points from {steps[0]} to {steps[1]} steps, {samples} images",
        -drop / samples,
        "Once doubling the steps no longer changes accuracy the attack has done what it can; if it still changes, "
        "give it more steps before believing the number.",
    )


def noise_control(clean: int, noise: int, attacked: int, samples: int) -> Check:
    """Images left correct by nothing, by random noise and by PGD within the same ball."""
    by_noise, by_attack = clean - noise, clean - attacked
    severity: Severity = "pass"
    if by_attack - by_noise <= SINGLE:
        severity = "warn" if by_attack <= max(SINGLE, TOO_FEW * samples) else "fail"
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


def gradient_free_attacks(broken: int, samples: int) -> Check:
    """Images that only queries or transfer broke, after all attacks with the model's own gradient."""
    share = broken / samples
    severity: Severity = (
        "fail" if share > MASKED_FAIL and broken > SINGLE else "warn" if share > MASKED_WARN else "pass"
    )
    return Check(
        "queries and transfer",
        severity,
        f"break {broken} of {samples} images ({percent(share)}) that gradients left",
        share,
        "Attacks that do not use the model's gradient know less and should find nothing new; if they do, gradients are "
        "masked or the attacks that use them too weak, and the true robustness is lower still.",
    )


def surrogate_sensitivity(best: int, together: int, samples: int, candidates: int) -> Check:
    """Images left correct by the best single estimator, and by all together."""
    gap = best - together
    return Check(
        "surrogates",
        "warn" if gap / samples > SENSITIVE and gap > SINGLE else "pass",
        f"all {candidates} together break {gap} of {samples} images more than the best one",
        gap / samples,
        "If one surrogate gradient misses images that others break, a result through a single one is too high; count "
        "an image as robust only if it withstands several.",
    )


def lost_on_the_way(lost: int, samples: int) -> Check:
    """Images misclassified at some step of PGD but not at its last."""
    share = lost / samples
    return Check(
        "last step",
        "warn" if share > SPARED and lost > SINGLE else "pass",
        f"{lost} of {samples} images adversarial on the way, not at the end",
        share,
        "An attack that passes an adversarial image and goes past it loses it, which flatters the model; keep the best "
        "point of the path, and use smaller steps towards the end.",
    )


def binarization_test(broken: int, by_chance: int, samples: int, images: int) -> Check:
    """Images whose known adversarial point the attacks found, and random search; `samples` of `images` have one.

    Where random search finds most of them, or few could be made, the test was too easy or too small to tell.
    Source: Zimmermann et al. 2022.
    """
    missed = samples - broken
    severity: Severity = "pass"
    if missed > max(SINGLE, KNOWN_WARN * samples):
        severity = "fail" if missed > KNOWN_FAIL * samples or broken - by_chance <= SINGLE else "warn"
    elif 2 * by_chance > samples or samples < FEW_KNOWN:
        severity = "warn"
    return Check(
        "binarization test",
        severity,
        f"finds {broken}, random search {by_chance} of {samples} images' known adversarial points"
        + (f"; none could be made for {images - samples} of {images}" if samples < images else ""),
        broken / samples if samples else float("nan"),
        "In a model changed so that every image has an adversarial point, a strong attack finds it and random search "
        "does not; one that misses it proves nothing where it finds none: use stronger attacks.",
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
        "By so much may the accuracy differ from that on all images by chance; use more images to compare models that "
        "are closer.",
    )
