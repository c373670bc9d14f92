"""The neural dynamic signature: recorded by `calibrate`, a value (`Signature`), used by `homeostatic`."""

from hosnn.signature.calibration import calibrate
from hosnn.signature.homeostasis import Share, homeostatic
from hosnn.signature.signature import LayerSignature, Signature, fingerprint

__all__ = ["LayerSignature", "Share", "Signature", "calibrate", "fingerprint", "homeostatic"]
