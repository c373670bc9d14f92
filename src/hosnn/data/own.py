"""A data set of one's own: class folders of pictures, Parquet files, arrays, or a function that returns arrays.

ROOT/CLASS/*.png                       one pile; a fixed fifth of each class becomes the test split
ROOT/train/CLASS/*, ROOT/test/CLASS/*  parted already; ROOT/validation/CLASS/* too, if there is one
ROOT/train*.parquet, test*.parquet     pictures and labels in the usual columns; one file alone is one pile
data.npz, data.pt                      x and y, or x_train, y_train, x_test, y_test
file.py:function                       a function without arguments that returns (x, y), or a dict as above
"""

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from hosnn.data.arrays import read_npz, read_pt, returned
from hosnn.data.class_folders import read_class_folders
from hosnn.data.dataset import Dataset
from hosnn.data.own_parquet import read_own_parquet
from hosnn.data.parts import Parts, dataset_of
from hosnn.data.sources import Contents, recognised
from hosnn.data.specification import Specification
from hosnn.data.split import Split
from hosnn.errors import DataError

ARRAYS: dict[str, Callable[[Path], Parts]] = {".npz": read_npz, ".pt": read_pt, ".pth": read_pt}

KINDS = "a folder of class folders or Parquet files, a .parquet, .npz or .pt file, or file.py:function"


OWN = "own:"
"""The name of a data set of one's own begins so."""


def own_data_exists(source: str) -> bool:
    """Whether there is a file or folder that `load_own` would read."""
    return Path(source).expanduser().exists() or Path(source.rpartition(":")[0]).expanduser().is_file()


def absolute_source(source: str, names: Collection[str] = ()) -> str:
    """The same data set for a process in another working folder: paths become absolute, `names` of data sets stay."""
    if source in names or source.partition(":")[0] in names:
        return source
    place, colon, function = source.rpartition(":")
    if Path(source).expanduser().exists():
        return str(Path(source).expanduser().resolve())
    return f"{Path(place).expanduser().resolve()}:{function}" if colon and Path(place).suffix == ".py" else source


def is_own(source: str) -> bool:
    """Whether `--data` names something of the user's own rather than a data set by name."""
    return bool(source) and (any(mark in source for mark in ":/\\") or Path(source).expanduser().exists())


def load_own(source: str, published: Iterable[Specification] = ()) -> Dataset:
    """The data set that a path or `file.py:function` means, named after its last part; or the one of `published` whose
    images these are, to the pixel, with its name, splits and hash.

    Raises DataError if there is none, or for content that is no data set, naming the file.
    """
    place, colon, function = source.rpartition(":")
    path = Path(source).expanduser()
    if colon and not path.exists():
        file = Path(place).expanduser().resolve()
        parts, name, origin = returned(file, function), f"{file.stem}-{function}", f"{file}:{function}"
    else:
        path = path.resolve()
        parts, name, origin = _read(path), path.stem if path.is_file() else path.name, str(path)
    for specification in published if parts.images.keys() == {"train", "test"} else ():
        train, test = (Split.in_order(parts.images[part], parts.labels[part]) for part in ("train", "test"))
        dataset = recognised(specification, Contents(train, test, parts.lossy), origin)
        if dataset is not None:
            return dataset
    return dataset_of(parts, OWN + (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"), origin)


def _read(path: Path) -> Parts:
    if path.is_dir():
        if any(path.glob("*.parquet")):
            return read_own_parquet(list(path.glob("*.parquet")))
        return read_class_folders(path)
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}, and no data set of that name; expected {KINDS}")
    if path.suffix == ".parquet":
        return read_own_parquet([path])
    if path.suffix not in ARRAYS:
        raise DataError(f"{path} is no data set by its ending; expected {KINDS}")
    return ARRAYS[path.suffix](path)
