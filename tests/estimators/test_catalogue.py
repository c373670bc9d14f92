"""Lists of estimators and what reports call them."""

import math

import pytest
import torch

from hosnn.estimators import ALTERNATIVES, CUTS, ENSEMBLE, HART, SIGMOIDS, AdaptiveSharpness, Estimator, estimator_name
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.surrogate import Exponential, PiecewiseLinear, Rectangle, Sigmoid


def test_titles_are_short_and_tell_estimators_apart() -> None:
    every = {*SIGMOIDS, *CUTS, *ENSEMBLE, *ALTERNATIVES}
    titles = [estimator_name(estimator) for estimator in every]
    assert len(set(titles)) == len(every)
    assert max(map(len, titles)) <= 32 and not any("(" in name and "peak" not in name for name in titles)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (bptt(), "BPTT, sigmoid 0.2"),
        (bptt(Rectangle(0.5)), "BPTT, rectangle 0.5"),
        (bptt(Sigmoid(0.2, clamp=8.0)), "BPTT, sigmoid 0.2 (clamp 8)"),
        (tssl_bp(), "TSSL-BP"),
        (GradientRule(leak=False), "leak cut"),
        (GradientRule(leak=False, reset=False), "leak and reset cut"),
        (GradientRule(Rectangle(0.5), leak=False), "leak cut, rectangle 0.5"),
        (GradientRule(threshold=False), "threshold cut"),
        (GradientRule(threshold=False, at_resting_threshold=True), "threshold at rest"),
        (GradientRule(at_resting_threshold=True), "surrogate at rest"),
        (AdaptiveSharpness(), "ASSG"),
        (AdaptiveSharpness(0.35), "ASSG, vanishing 0.35"),
        (HART(PiecewiseLinear(0.5)), "HART, surrogate triangle 0.5"),
    ],
)
def test_a_title_says_what_differs(estimator: Estimator, expected: str) -> None:
    assert estimator_name(estimator) == expected


def test_rules_that_differ_have_titles_that_differ() -> None:
    rules = [
        GradientRule(surrogate, leak, reset, threshold, rest)
        for surrogate in (Sigmoid(0.2), Sigmoid(0.3), Rectangle(0.2), Exponential(0.2), Exponential(0.2, 0.3))
        for leak in (True, False)
        for reset in (True, False)
        for threshold in (True, False)
        for rest in (True, False)
    ]
    assert len({estimator_name(rule) for rule in rules}) == len(rules)


def test_the_ensemble_has_the_seventeen_published_surrogates() -> None:
    """Values at x = 0.1 and 0.3, by the published formulas: triangle (γ - |x|)+/γ², p exp(-γ|x|), rectangle, 1."""
    assert len(ENSEMBLE) == 17
    for at in (0.1, 0.3):
        expected = [
            *(max(0.0, g - at) / g**2 for g in (0.25, 0.5, 1.0, 2.0, 3.0)),
            *(0.3 * math.exp(-g * at) for g in (0.5, 1.0, 2.0)),
            *(math.exp(-g * at) for g in (0.5, 1.0, 2.0)),
            *((at < g / 2) / g for g in (0.25, 0.5, 1.0, 2.0, 4.0)),
            1.0,
        ]
        x = torch.tensor([at, -at], dtype=torch.float64)
        for estimator, value in zip(ENSEMBLE, expected, strict=True):
            assert isinstance(estimator, GradientRule)
            assert estimator == bptt(estimator.surrogate), "all through full BPTT"
            torch.testing.assert_close(estimator.surrogate.derivative(x), torch.full_like(x, value))
