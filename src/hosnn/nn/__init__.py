"""Modules that own parameters: spiking neurons, the layers between them, whole networks."""

from hosnn.nn.body import Body
from hosnn.nn.fusion import unfused
from hosnn.nn.layers import (
    ConstantCoding,
    MeanReadout,
    Normalise,
    OverTime,
    SpikingNetwork,
    SumPool,
    TimeDropout,
    WeightedReadout,
)
from hosnn.nn.neurons import LIF, TALIF, Emit, Extrapolation
from hosnn.nn.normalisation import Norm, TimeBatchNorm
from hosnn.nn.thresholds import ThresholdLIF

__all__ = [
    "LIF",
    "TALIF",
    "Body",
    "ConstantCoding",
    "Emit",
    "Extrapolation",
    "MeanReadout",
    "Norm",
    "Normalise",
    "OverTime",
    "SpikingNetwork",
    "SumPool",
    "ThresholdLIF",
    "TimeBatchNorm",
    "TimeDropout",
    "WeightedReadout",
    "unfused",
]
