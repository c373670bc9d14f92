"""Where spiking models and attacks meet: gradient estimators, and attacks on what a spiking network does over time."""

from hosnn.estimators.rules import Through, with_rule
from hosnn.estimators.views import InNormalisedUnits, OnFrames, OnTraces, TraceCrossEntropy

__all__ = ["InNormalisedUnits", "OnFrames", "OnTraces", "Through", "TraceCrossEntropy", "with_rule"]
