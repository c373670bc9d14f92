"""Homeostatic spiking networks (TA-LIF) and a robustness evaluation that spiking networks cannot fool.

import hosnn

signature = hosnn.calibrate(model, clean_batches)   # model: any nn.Module with hosnn.LIF() layers
homeostatic = hosnn.homeostatic(model, signature)   # the same weights, thresholds that adapt
result = hosnn.evaluate(homeostatic, (x, y))        # accuracy under attack, one row per sample and attack
"""

from hosnn.errors import HosnnError
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.protocols import PaperChoices, Protocol, paper, smoke, sweep
from hosnn.evaluation.result import Evaluation
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork, SumPool, TimeDropout
from hosnn.nn.lenet import LeNet, lenet_15c5_40c5_300, lenet_32c5_64c5_1024
from hosnn.nn.neurons import LIF, TALIF, Beyond, Emit
from hosnn.robustness.ensembles import Noise, Transfer, Worst
from hosnn.robustness.gradient import PGD, bim, fgsm, r_fgsm
from hosnn.robustness.threats import L1, L2, Linf, Threat
from hosnn.signature import Share, Signature, calibrate, homeostatic
from hosnn.spiking.dynamics import Dynamics, Reset
from hosnn.spiking.gradient import GradientRule, bptt, tssl_bp
from hosnn.training.models import load, load_into, save

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "LIF",
    "PGD",
    "TALIF",
    "Beyond",
    "ConstantCoding",
    "Dynamics",
    "Emit",
    "Evaluation",
    "GradientRule",
    "HosnnError",
    "LeNet",
    "Linf",
    "MeanReadout",
    "Noise",
    "Normalise",
    "OverTime",
    "PaperChoices",
    "Protocol",
    "Reset",
    "Share",
    "Signature",
    "SpikingNetwork",
    "SumPool",
    "Threat",
    "TimeDropout",
    "Transfer",
    "Worst",
    "bim",
    "bptt",
    "calibrate",
    "evaluate",
    "fgsm",
    "homeostatic",
    "lenet_15c5_40c5_300",
    "lenet_32c5_64c5_1024",
    "load",
    "load_into",
    "paper",
    "r_fgsm",
    "save",
    "smoke",
    "sweep",
    "tssl_bp",
]
