"""Arrays of one's own: .npz and .pt files, read without running code, and what a function returns.

Legend: N rows, T time, C channels, H height, W width.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from hosnn.data.containers import as_images, as_labels
from hosnn.data.parts import Parts
from hosnn.errors import DataError, HosnnError
from hosnn.python_files import importing_beside, load_function

IMAGES, LABELS = ("x", "images", "image", "data"), ("y", "labels", "label", "targets")
PARTS = ("train", "validation", "valid", "val", "test")

SMALL = 1 << 30
"""Bytes that an array may take from a file of any size."""

MOST_EXPANSION = 100
"""Larger arrays may take so many times the size of their file: pictures and frames of events compress less."""

EXPECTED = "x [N, C, H, W] and y [N], or x_train, y_train, x_test and y_test"


def read_npz(path: Path) -> Parts:
    """Arrays of a NumPy archive.  Raises DataError for pickled objects, or arrays that are no images and labels."""
    try:
        _check_archive(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except HosnnError:
        raise
    except Exception as error:  # damaged files end in errors of any type
        raise DataError(
            f"{path} cannot be read as a NumPy archive without running code ({error}); expected {EXPECTED}, saved with "
            "numpy.savez(path, x=..., y=...)"
        ) from error
    return parts_of(arrays, str(path))


def read_pt(path: Path) -> Parts:
    """Tensors of a file that torch.save wrote: a dict, or (x, y).  Raises DataError for anything but tensors in it."""
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        for tensor in tree_leaves(content):
            if isinstance(tensor, Tensor):  # one number can stand for any number of them
                _check_size(path, "a tensor", tensor.numel() * tensor.element_size())
    except HosnnError:
        raise
    except Exception as error:  # damaged files end in errors of any type
        raise DataError(
            f"{path} cannot be read as tensors without running code ({type(error).__name__}); expected a dict with "
            f"{EXPECTED}, saved with torch.save"
        ) from error
    return parts_of(content, str(path))


def _check_archive(path: Path) -> None:
    """Raises DataError for an archive with a member that would fill the memory, or that claims more than it holds.

    Only headers are unpacked.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check_size(path, member.filename, member.file_size)
            with archive.open(member) as file:
                try:
                    version = np.lib.format.read_magic(file)
                except ValueError:  # no array of NumPy's
                    continue
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                claimed = math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and claimed != member.file_size - file.tell():
                    raise DataError(
                        f"{path}: {member.filename} claims {claimed:,} bytes of numbers and holds "
                        f"{member.file_size - file.tell():,}; it is damaged, save it again"
                    )


def _check_size(path: Path, name: str, claimed: int) -> None:
    stored = path.stat().st_size
    if claimed > max(SMALL, MOST_EXPANSION * stored):
        raise DataError(
            f"{path}: {name} would take {claimed / 1e9:,.1f} GB, from a file of {stored:,} bytes; expected at most "
            f"{MOST_EXPANSION} times its size: save it anew from images that you trust"
        )


def returned(file: Path, function: str) -> Parts:
    """What `function()` of a Python file returns: (x, y), or a dict of arrays.  Raises DataError for anything else."""
    origin = f"{file}:{function}"
    try:
        with importing_beside(file):
            content = load_function(file, function)()
    except HosnnError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        raise DataError(f"{origin} raised {type(error).__name__}: {error}; expected it to return (x, y)") from error
    return parts_of(content, origin)


def parts_of(content: Any, origin: str) -> Parts:
    """Images and labels by part, from (x, y) or a mapping with names such as x_train.  Raises DataError."""
    if isinstance(content, (tuple, list)) and len(content) == 2:
        content = {"x": content[0], "y": content[1]}
    if not isinstance(content, Mapping):
        raise DataError(f"{origin} gave {type(content).__name__}; expected (x, y), or a dict with {EXPECTED}")
    images: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    for part in ("", *PARTS):
        x, y = (_named(content, names, part) for names in (IMAGES, LABELS))
        if x is None or y is None:
            continue
        where = f"{origin}, {part}" if part else origin
        name = {"": "all", "val": "validation", "valid": "validation"}.get(part, part)
        images[name], labels[name] = as_images(x, where), as_labels(y, where)
        if len(images[name]) != len(labels[name]):
            raise DataError(f"{where}: {len(images[name])} images and {len(labels[name])} labels; expected as many")
    if not images or ("all" in images and len(images) > 1):
        raise DataError(f"{origin} holds {', '.join(map(str, content)) or 'nothing'}; expected {EXPECTED}")
    return Parts(images=images, labels=labels, origin=origin)


def _named(content: Mapping[str, Any], names: tuple[str, ...], part: str) -> Any:
    """The array called x, x_train or train_x, say; None if there is none."""
    for name in names:
        for key in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
            if key in content:
                return content[key]
    return None
