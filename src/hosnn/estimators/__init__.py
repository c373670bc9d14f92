"""Attacks made for spiking networks: gradient estimators, wrappers for attacks over time, adaptive losses."""

from hosnn.estimators.adaptive_losses import (
    AdaptiveLoss,
    AgainstHomeostasis,
    LowerThresholds,
    SignatureDeviation,
    SilenceNeurons,
)
from hosnn.estimators.attack_wrappers import InNormalisedUnits, OnFrames, OnTraces, TraceCrossEntropy
from hosnn.estimators.catalogue import ALTERNATIVES, CUTS, ENSEMBLE, WIDTHS, title
from hosnn.estimators.rates import BPTR, HART, RGA, ActivationBackward
from hosnn.estimators.rules import Estimator, Through, with_rule
from hosnn.estimators.search import SearchedSharpness
from hosnn.estimators.sharpness import AdaptiveSharpness

__all__ = [
    "ALTERNATIVES",
    "BPTR",
    "CUTS",
    "ENSEMBLE",
    "HART",
    "RGA",
    "WIDTHS",
    "ActivationBackward",
    "AdaptiveLoss",
    "AdaptiveSharpness",
    "AgainstHomeostasis",
    "Estimator",
    "InNormalisedUnits",
    "LowerThresholds",
    "OnFrames",
    "OnTraces",
    "SearchedSharpness",
    "SignatureDeviation",
    "SilenceNeurons",
    "Through",
    "TraceCrossEntropy",
    "title",
    "with_rule",
]
