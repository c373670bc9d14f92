"""The neural dynamic signature: recorded (`calibrate`), kept as a value, given to a network (`homeostatic`)."""

from hosnn.signature.calibration import calibrate
from hosnn.signature.homeostasis import Share, homeostatic
from hosnn.signature.signature import LayerSignature, Signature, fingerprint

__all__ = ["LayerSignature", "Share", "Signature", "calibrate", "fingerprint", "homeostatic"]
