"""Errors that a user can cause and correct.  A message names what came, what was expected and what to do."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most similar to `name`, for "did you mean"; "" if there are none."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0)), "")


class HosnnError(Exception):
    """An error that the user can correct.  The command line prints its text without a traceback and exits with 2."""


class ShapeError(HosnnError, ValueError):
    """A tensor of the wrong shape, dtype or range."""


class ConfigError(HosnnError, ValueError):
    """A setting that is invalid, in a recipe, an attack, a threat or on the command line."""


class DataError(HosnnError):
    """A data set that is absent, damaged or another one than expected."""


class SignatureError(HosnnError):
    """A signature that cannot be recorded, read, written, merged or used with this network."""


class CheckpointError(HosnnError):
    """A checkpoint that cannot be read, belongs to another architecture or cannot be written."""


class TrainingError(HosnnError):
    """Training that cannot continue, e.g. because the loss is not finite."""


class BackendError(HosnnError):
    """A backend that is not available, or does not support what it was asked to compute."""


class HosnnWarning(UserWarning):
    """Something to know that stops nothing.  The command line prints its text on a line of standard error."""


class NoEffectWarning(HosnnWarning):
    """Something was asked for that changes nothing."""


class UnwrappedWarning(HosnnWarning):
    """The network inside a compiled, parallel or exported model is used in its place."""


class InPlaceWarning(HosnnWarning):
    """A model changes its input in place; it gets copies."""


class ReusedWarning(HosnnWarning):
    """A stored result that another version made is used as it is."""


class SetAsideWarning(HosnnWarning):
    """Stored work that is not what was asked for was kept under another name."""
