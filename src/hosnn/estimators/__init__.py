"""Gradient estimators for spiking networks, wrappers for attacks over time, losses aimed at adapting thresholds."""

from hosnn.estimators.adaptive_losses import (
    AdaptiveLoss,
    AgainstHomeostasis,
    LowerThresholds,
    SignatureDeviation,
    SilenceNeurons,
)
from hosnn.estimators.attack_wrappers import InNormalisedUnits, OnFrames, OnTraces, TraceCrossEntropy
from hosnn.estimators.catalogue import ALTERNATIVES, CUTS, ENSEMBLE, SIGMOIDS, estimator_name
from hosnn.estimators.membrane_margin import WithMembraneMargin
from hosnn.estimators.rates import BPTR, HART, RGA, ActivationBackward
from hosnn.estimators.rules import Estimator, Through, check_reach, has_spiking_layers, with_rule
from hosnn.estimators.searched_sharpness import SearchedSharpness
from hosnn.estimators.sharpness import AdaptiveSharpness

__all__ = [
    "ALTERNATIVES",
    "BPTR",
    "CUTS",
    "ENSEMBLE",
    "HART",
    "RGA",
    "SIGMOIDS",
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
    "WithMembraneMargin",
    "check_reach",
    "estimator_name",
    "has_spiking_layers",
    "with_rule",
]
