"""Lists of gradient estimators to attack with, and their names in reports."""

from dataclasses import fields

from hosnn.estimators.rates import BPTR, HART, RGA, ActivationBackward
from hosnn.estimators.rules import Estimator
from hosnn.estimators.sharpness import AdaptiveSharpness
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.surrogate import (
    Arctan,
    Exponential,
    FastSigmoid,
    PiecewiseLinear,
    PotentialDependent,
    Rectangle,
    Sigmoid,
    StraightThrough,
    Surrogate,
)

DAMPED = 0.3
"""The peak of a damped exponential (dampening factor of Bellec et al. 2018; Özdenizci & Legenstein use it)."""

ENSEMBLE: tuple[Estimator, ...] = (
    *(bptt(PiecewiseLinear(width)) for width in (0.25, 0.5, 1.0, 2.0, 3.0)),
    *(bptt(Exponential(1 / sharpness, peak=DAMPED)) for sharpness in (0.5, 1.0, 2.0)),
    *(bptt(Exponential(1 / sharpness, peak=1.0)) for sharpness in (0.5, 1.0, 2.0)),
    *(bptt(Rectangle(width)) for width in (0.25, 0.5, 1.0, 2.0, 4.0)),
    bptt(StraightThrough()),
)
"""Full BPTT through 17 surrogates.

Source: Özdenizci & Legenstein, "Adversarially Robust Spiking Neural Networks Through Conversion", TMLR 2024, and its
code: triangles and rectangles by width, exponentials p exp(-γ|x|) by sharpness γ = 1/width with p = 1 or, damped, 0.3.
"""

CUTS: tuple[Estimator, ...] = (
    GradientRule(leak=False),
    GradientRule(reset=False),
    GradientRule(threshold=False),
    GradientRule(threshold=False, at_resting_threshold=True),
)
"""BPTT without one path; the last has the threshold frozen at rest.  For a plain LIF the last two equal full BPTT."""

SIGMOIDS: tuple[Estimator, ...] = tuple(bptt(Sigmoid(width)) for width in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0))
"""Full BPTT through sigmoids of six widths."""

ALTERNATIVES: tuple[Estimator, ...] = (
    BPTR(),
    RGA(),
    ActivationBackward(),
    HART(),
    bptt(PotentialDependent()),
    AdaptiveSharpness(),
    tssl_bp(),
)
"""Estimators proposed in place of BPTT with one surrogate for all neurons."""


def estimator_name(rule: Estimator) -> str:
    """A short name for a report, e.g. "BPTT, sigmoid 0.2", "leak cut", "BPTR"; different for different estimators."""
    if isinstance(rule, GradientRule):
        return _rule_name(rule)
    name = _NAMES.get(type(rule), type(rule).__name__)
    settings = [
        f"{field.name} {_text(getattr(rule, field.name))}"
        for field in fields(rule)
        if getattr(rule, field.name) != field.default
    ]
    return ", ".join([name, *settings])


_NAMES: dict[type, str] = {
    AdaptiveSharpness: "ASSG",
    BPTR: "BPTR",
    RGA: "RGA",
    HART: "HART",
    ActivationBackward: "activation backward",
    Sigmoid: "sigmoid",
    FastSigmoid: "fast sigmoid",
    Arctan: "arctan",
    PiecewiseLinear: "triangle",
    Rectangle: "rectangle",
    Exponential: "exponential",
    StraightThrough: "straight-through",
    PotentialDependent: "PDSG",
}


def _rule_name(rule: GradientRule) -> str:
    if rule == tssl_bp():
        return "TSSL-BP"
    if rule == bptt(PotentialDependent()):
        return "PDSG"
    cut_paths = [name for name in ("leak", "reset", "threshold") if not getattr(rule, name)]
    if rule.at_resting_threshold:
        cut_paths = [name for name in cut_paths if name != "threshold"]
    parts = [f"{' and '.join(cut_paths)} cut"] if cut_paths else []
    if rule.at_resting_threshold:
        parts.append("surrogate at rest" if rule.threshold else "threshold at rest")
    parts = parts or ["BPTT"]
    if rule.local_adaptation:
        parts.append("local k")
    if parts == ["BPTT"] or rule.surrogate != bptt().surrogate:
        parts.append(_surrogate_name(rule.surrogate))
    return ", ".join(parts)


def _surrogate_name(surrogate: Surrogate) -> str:
    words = [_NAMES.get(type(surrogate), type(surrogate).__name__)]
    if hasattr(surrogate, "width"):
        words.append(_text(surrogate.width))
    extra = [
        f"{field.name} {_text(getattr(surrogate, field.name))}"
        for field in fields(surrogate)
        if field.name != "width" and getattr(surrogate, field.name) != field.default
    ]
    return " ".join(words) + (f" ({', '.join(extra)})" if extra else "")


def _text(value: object) -> str:
    if isinstance(value, Surrogate):
        return _surrogate_name(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
