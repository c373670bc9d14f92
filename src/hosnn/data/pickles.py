"""Batches of CIFAR's Python version, read from pickles without executing the code that a pickle can name.

A pickle is a program: it names functions and calls them.  CIFAR's files name three objects of numpy, and each is
replaced here by a class that only stores its arguments; any other name is an error.  So not even numpy's code runs, and
the array is rebuilt afterwards from its bytes and a checked shape.
Legend: N images, P numbers in an image (C x H x W).
"""

import io
import pickle
import pickletools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hosnn.errors import DataError

LARGEST_MEMO = 1_000_000
"""Of the numbers under which a pickle keeps objects; a table of that length is made for them."""


class Batch(NamedTuple):
    """The content of one file."""

    images: NDArray[np.uint8]  # [N, P]
    labels: NDArray[np.int64]  # [N]


def read_pickle(content: bytes, numbers: int, origin: str, *, labels: str) -> Batch:
    """A batch from the bytes of a pickle that Python 2 wrote: a dict with `data` [N, P] uint8 and a list of labels.

    numbers  P
    origin   names the file in messages
    labels   the list's key, "labels" or "fine_labels"
    Raises DataError if the pickle calls anything but numpy's array, is damaged or contains something else.
    """
    try:
        _check_sharing(content)
        loaded = _SafeUnpickler(io.BytesIO(content), encoding="bytes").load()
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}
        data, label_list = _array(entries["data"], numbers), entries[labels]
        if not isinstance(label_list, list) or any(type(label) is not int for label in label_list):
            raise ValueError(f"its {labels} are not a list of integers")
        if len(label_list) != len(data):
            raise ValueError(f"it has {len(label_list)} labels for {len(data)} images")
        return Batch(data, np.array(label_list, np.int64))
    except _ForbiddenName as error:
        raise DataError(
            f"{origin} is a pickle that calls {error}, which could run any code; it was not called.  Expected a batch "
            "of CIFAR, which calls numpy's array only; do not open this file, get the original"
        ) from error
    except Exception as error:  # a damaged pickle may raise any exception
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{origin} cannot be read as a batch of CIFAR ({reason}), expected a pickled dict with data [N, {numbers}] "
            f"and {labels}; get it again"
        ) from error


def _check_sharing(content: bytes) -> None:
    """Raises ValueError if the pickle uses a tuple, list or dict more than once.

    A tuple of twice the same, forty times over, has 2^40 parts for whoever hashes or prints it.
    """
    reusable: set[int] = set()
    before, count = "", 0
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            number = count if name == "MEMOIZE" else argument
            if not isinstance(number, int) or number > LARGEST_MEMO:
                raise ValueError(f"it keeps an object under the number {number}")
            count += 1
            if any(part in before for part in ("STRING", "UNICODE", "BYTES", "GLOBAL")):
                reusable.add(number)
            else:
                reusable.discard(number)
        elif name == "DUP" or ("GET" in name and argument not in reusable):
            raise ValueError("it uses one object in several places")
        before = name


class _ForbiddenName(pickle.UnpicklingError):
    """The pickle named something that CIFAR's files do not."""


class _RecordedCall:
    """Takes the place of a numpy object: stores the arguments of its call and its state."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array(_RecordedCall):
    pass


class _ArrayType(_RecordedCall):
    pass


class _NumberType(_RecordedCall):
    pass


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _NumberType,
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> type[_RecordedCall]:
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise _ForbiddenName(f"{module_name}.{global_name}") from None


def _array(call: object, numbers: int) -> NDArray[np.uint8]:
    """The array that numpy would have rebuilt.  Raises ValueError or TypeError if it is not [N, P] of bytes."""
    if not isinstance(call, _Array) or not isinstance(call.state, tuple):
        raise ValueError("its data is not a numpy array")
    _, shape, kind, column_major, content = call.state
    if not isinstance(kind, _NumberType) or kind.arguments[0] not in (b"u1", "u1", b"|u1", "|u1"):
        raise ValueError("its data is not unsigned bytes")
    if not isinstance(content, bytes) or len(shape) != 2 or shape[1] != numbers or len(content) != shape[0] * numbers:
        raise ValueError(f"its data has shape {shape} in {len(content)} bytes")
    return np.ascontiguousarray(np.frombuffer(content, np.uint8).reshape(shape, order="F" if column_major else "C"))
