"""Errors a user can cause.  Each says what came, what was expected and what to do; the command line exits with 2."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, for "did you mean"; empty if nothing is known."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0)), "")


class HosnnError(Exception):
    """Anything the user can mend.  The command line prints its text without a traceback."""


class ShapeError(HosnnError, ValueError):
    """A tensor of the wrong shape, dtype or range."""


class ConfigError(HosnnError, ValueError):
    """A value in a recipe, a threat or on the command line that makes no sense."""


class DataError(HosnnError):
    """A data set that is absent, damaged or not what it claims to be."""


class SignatureError(HosnnError):
    """A signature that belongs to another network, data set or number of time steps."""


class CheckpointError(HosnnError):
    """A checkpoint that cannot be read, belongs to another architecture or cannot be written."""


class TrainingError(HosnnError):
    """Training that cannot go on, e.g. because the loss is not finite."""


class BackendError(HosnnError):
    """A backend that is asked for and not there, or asked for what it does not do."""
