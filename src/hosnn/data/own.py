"""A data set of one's own: class folders of pictures, Parquet files, arrays, or a function that returns arrays.

ROOT/CLASS/*.png                       one pile; a fixed fifth of each class becomes the test split
ROOT/train/CLASS/*, ROOT/test/CLASS/*  parted already; ROOT/validation/CLASS/* too, if there is one
ROOT/train*.parquet, test*.parquet     pictures and labels in the usual columns; one file alone is one pile
data.npz, data.pt                      x and y, or x_train, y_train, x_test, y_test
file.py:function                       a function without arguments that returns (x, y), or a dict as above
"""

import re
from collections.abc import Callable
from pathlib import Path

from hosnn.data.arrays import read_npz, read_pt, returned
from hosnn.data.class_folders import read_class_folders
from hosnn.data.dataset import Dataset
from hosnn.data.own_parquet import read_own_parquet
from hosnn.data.parts import Parts, dataset_of
from hosnn.errors import DataError

ARRAYS: dict[str, Callable[[Path], Parts]] = {".npz": read_npz, ".pt": read_pt, ".pth": read_pt}

KINDS = "a folder of class folders or Parquet files, a .parquet, .npz or .pt file, or file.py:function"


def is_own(source: str) -> bool:
    """Whether `--data` names something of the user's own rather than a data set by name."""
    return ":" in source or "/" in source or "\\" in source or Path(source).expanduser().exists()


def load_own(source: str) -> Dataset:
    """The data set that a path or `file.py:function` means, named after its last part.

    Raises DataError if there is none, or for content that is no data set, naming the file.
    """
    place, colon, function = source.rpartition(":")
    path = Path(source).expanduser()
    if colon and not path.exists():
        parts, name = returned(Path(place).expanduser(), function), f"{Path(place).stem}-{function}"
    else:
        parts, name = _read(path), path.resolve().stem if path.is_file() else path.resolve().name
    return dataset_of(parts, re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data", source)


def _read(path: Path) -> Parts:
    if path.is_dir():
        if any(path.glob("*.parquet")):
            return read_own_parquet(list(path.glob("*.parquet")))
        return read_class_folders(path)
    if not path.is_file():
        raise DataError(f"there is no {path}, neither a data set by that name; expected {KINDS}")
    if path.suffix == ".parquet":
        return read_own_parquet([path])
    if path.suffix not in ARRAYS:
        raise DataError(f"{path} is no data set by its ending; expected {KINDS}")
    return ARRAYS[path.suffix](path)
