"""Linear theory of a TA-LIF neuron's error, what is certain without it, and populations of spikes to test it on."""

from hosnn.theory.bounds import membrane_bound, threshold_bound
from hosnn.theory.certificate import Certificate, certify
from hosnn.theory.continuous import ContinuousDynamics
from hosnn.theory.growth import Disturbance, lif_mean_square, limit, mean_square, wiener_slope
from hosnn.theory.linear import ErrorDynamics, frozen_rate, responding_rate, static_feedback
from hosnn.theory.population import Feedback, OperatingPoints, advance, measured, operating_points, run
from hosnn.theory.timing import random_boundary, random_radius, regular_boundary, regular_cycle

__all__ = [
    "Certificate",
    "ContinuousDynamics",
    "Disturbance",
    "ErrorDynamics",
    "Feedback",
    "OperatingPoints",
    "advance",
    "certify",
    "frozen_rate",
    "lif_mean_square",
    "limit",
    "mean_square",
    "measured",
    "membrane_bound",
    "operating_points",
    "random_boundary",
    "random_radius",
    "regular_boundary",
    "regular_cycle",
    "responding_rate",
    "run",
    "static_feedback",
    "threshold_bound",
    "wiener_slope",
]
