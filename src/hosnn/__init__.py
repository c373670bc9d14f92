"""Homeostatic spiking networks (TA-LIF) and a robustness evaluation that spiking networks cannot fool.

import hosnn

signature = hosnn.calibrate(model, clean_batches)   # model: any nn.Module with hosnn.LIF() layers
homeostatic = hosnn.homeostatic(model, signature)   # the same weights, thresholds that adapt
result = hosnn.evaluate(homeostatic, (x, y))        # accuracy under attack, one row per sample and attack
"""

from importlib import import_module
from types import ModuleType

import hosnn.heap  # before torch is loaded, as are the next two
import hosnn.openmp
import hosnn.places  # noqa: F401
from hosnn.errors import HosnnError
from hosnn.estimators import Through
from hosnn.evaluation.evaluate import evaluate
from hosnn.inspection.inspect import inspect
from hosnn.inspection.recording import Offset
from hosnn.nn.conversion import ann_to_snn
from hosnn.nn.convnet import ConvNet, Twin, paper_cifar10, paper_cifar100, small_convnet, vgg11
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork, SumPool, TimeDropout
from hosnn.nn.lenet import LeNet, lenet_15c5_40c5_300, lenet_32c5_64c5_1024
from hosnn.nn.neurons import LIF, TALIF, Emit, Extrapolation
from hosnn.nn.normalisation import Norm, TimeBatchNorm
from hosnn.nn.resnet import ResNet, resnet18
from hosnn.nn.streaming import Stream, stream
from hosnn.protocols.builtin import full, quick, smoke, standard, sweep
from hosnn.protocols.paper import PaperChoices, paper
from hosnn.protocols.protocol import Protocol
from hosnn.provenance import version_of
from hosnn.results.evaluation import Evaluation
from hosnn.results.inspection import Inspection
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.ensembles import EOT, Noise, Transfer, Worst
from hosnn.robustness.fab import FAB
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.pgd import PGD, bim, fgsm, mi_fgsm, r_fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.signature import Share, Signature, calibrate, homeostatic
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.state import Dynamics, Reset
from hosnn.training.models import load, load_into, save

__version__ = version_of("hosnn")

__all__ = [
    "APGD",
    "EOT",
    "FAB",
    "L1",
    "L2",
    "LIF",
    "PGD",
    "SAPGD",
    "TALIF",
    "APGDTargeted",
    "ConstantCoding",
    "ConvNet",
    "Dynamics",
    "Emit",
    "Evaluation",
    "Extrapolation",
    "GradientRule",
    "HopSkipJump",
    "HosnnError",
    "Inspection",
    "LeNet",
    "Linf",
    "MeanReadout",
    "Noise",
    "Norm",
    "Normalise",
    "Offset",
    "OverTime",
    "PaperChoices",
    "Protocol",
    "ResNet",
    "Reset",
    "Share",
    "Signature",
    "SpikingNetwork",
    "Square",
    "Stream",
    "SumPool",
    "Threat",
    "Through",
    "TimeBatchNorm",
    "TimeDropout",
    "Transfer",
    "Twin",
    "Worst",
    "ann_to_snn",
    "bim",
    "bptt",
    "calibrate",
    "evaluate",
    "fgsm",
    "full",
    "homeostatic",
    "inspect",
    "lenet_15c5_40c5_300",
    "lenet_32c5_64c5_1024",
    "load",
    "load_into",
    "mi_fgsm",
    "paper",
    "paper_cifar10",
    "paper_cifar100",
    "quick",
    "r_fgsm",
    "resnet18",
    "save",
    "small_convnet",
    "smoke",
    "standard",
    "stream",
    "sweep",
    "tssl_bp",
    "vgg11",
]


def __getattr__(name: str) -> ModuleType:
    """`hosnn.plot`, imported when it is asked for: only figures need matplotlib."""
    if name == "plot":
        return import_module("hosnn.plot")
    raise AttributeError(f"module 'hosnn' has no attribute {name!r}")
