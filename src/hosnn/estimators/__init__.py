"""Where spiking models and attacks meet: gradient estimators, and attacks on what a spiking network does over time."""

from hosnn.estimators.catalogue import ALTERNATIVES, CUTS, ENSEMBLE, WIDTHS, title
from hosnn.estimators.defence import AgainstHomeostasis, LowerThresholds, SignatureError, SilenceNeurons, Term
from hosnn.estimators.rates import BPTR, HART, RGA, ActivationBackward
from hosnn.estimators.rules import Estimator, Through, with_rule
from hosnn.estimators.search import SearchedSharpness
from hosnn.estimators.sharpness import AdaptiveSharpness
from hosnn.estimators.views import InNormalisedUnits, OnFrames, OnTraces, TraceCrossEntropy

__all__ = [
    "ALTERNATIVES",
    "BPTR",
    "CUTS",
    "ENSEMBLE",
    "HART",
    "RGA",
    "WIDTHS",
    "ActivationBackward",
    "AdaptiveSharpness",
    "AgainstHomeostasis",
    "Estimator",
    "InNormalisedUnits",
    "LowerThresholds",
    "OnFrames",
    "OnTraces",
    "SearchedSharpness",
    "SignatureError",
    "SilenceNeurons",
    "Term",
    "Through",
    "TraceCrossEntropy",
    "title",
    "with_rule",
]
