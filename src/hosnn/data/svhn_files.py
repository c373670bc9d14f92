"""SVHN, cropped digits (Netzer et al. 2011, "Reading Digits in Natural Images"): 32x32 in colour, ten classes.

SHA-256 of the .mat files from torchvision (prototype) and TensorFlow Datasets; torchvision's MD5 are of the same files.
No hash of the Hub's files was at hand: the original host is tried before the Hub, whose content counts as unverified.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from hosnn.data.dataset import Dataset
from hosnn.data.hashes import verify_published_hash
from hosnn.data.matlab import read_mat
from hosnn.data.parquet import ParquetFiles
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import Contents, FolderLayout
from hosnn.data.specification import Specification
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
HOST = "http://ufldl.stanford.edu/housenumbers/"
REPOSITORY = "ufldl-stanford/svhn"


@dataclass(frozen=True)
class SvhnFiles:
    """The two MATLAB files of the cropped digits."""

    folder: Path

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The files in `folder`; None if there are none.  Raises DataError if one is missing."""
        missing = [name for name in (TRAIN, TEST) if not (folder / name).is_file()]
        if len(missing) == 1:
            raise DataError(f"{folder} lacks {missing[0]}, expected {TRAIN} and {TEST}; add what is missing")
        return None if missing else cls(folder)

    def __str__(self) -> str:
        return f"MATLAB files in {self.folder}"

    def read(self, specification: Specification) -> Contents:
        """Train and test.  Raises DataError naming the file that is not as specified."""
        vouched = [verify_published_hash(self.folder / name, specification) for name in (TRAIN, TEST)]
        return Contents(
            _read_split(self.folder / TRAIN, specification.train_size, specification),
            _read_split(self.folder / TEST, specification.test_size, specification),
            vouched=all(vouched),
        )


def _read_split(path: Path, size: int, specification: Specification) -> Split:
    """X [H, W, C, N] uint8 and y [N, 1], where 10 stands for the digit 0."""
    channels, height, width = specification.image_shape
    arrays = read_mat(path, {"X": (height, width, channels, size), "y": (size, 1)})
    if arrays["X"].dtype != np.uint8:
        raise DataError(f"{path} stores X as {arrays['X'].dtype}, expected uint8; is this another data set?")
    numbers = arrays["y"].reshape(-1)
    labels = numbers.astype(np.int64)
    if not np.array_equal(labels, numbers) or labels.min() < 1 or labels.max() > 10:
        raise DataError(
            f"{path} has labels from {numbers.min():g} to {numbers.max():g}, expected whole numbers 1 to 10, where 10 "
            "stands for the digit 0; get the original file"
        )
    images = arrays["X"].transpose(3, 2, 0, 1).copy()  # [H, W, C, N] -> [N, C, H, W]
    split = Split.in_order(torch.from_numpy(images), torch.from_numpy(labels % 10))
    check_split(split, specification.image_shape, len(specification.classes), str(path))
    return split


CLASSES = tuple("0123456789")

SVHN = PublishedDataset(
    Specification(
        name="svhn",
        classes=CLASSES,
        image_shape=(3, 32, 32),
        train_size=73_257,
        test_size=26_032,
        validation_size=5_000,
        sha256=None,
        published={
            TRAIN: "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            TEST: "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        },
    ),
    FolderLayout(
        formats=(SvhnFiles.find, ParquetFiles.find),
        subfolders=("cropped_digits",),
        expected=f"{TRAIN} and {TEST}, or train*.parquet and test*.parquet",
    ),
    f"""To get it, do one of these:
  - with network access, without HOSNN_OFFLINE and HF_HUB_OFFLINE: run again
  - fetch {TRAIN} and {TEST} from {HOST} and name their folder""",
    hub=(
        REPOSITORY,
        "cropped_digits/train-00000-of-00001.parquet",
        "cropped_digits/test-00000-of-00001.parquet",
    ),
    host=HOST,
    files=(TRAIN, TEST),
)


SVHN_PREFIX = PublishedDataset(
    Specification(
        name="svhn-prefix",
        classes=CLASSES,
        image_shape=(3, 32, 32),
        train_size=4_434,
        test_size=1_952,
        validation_size=400,
        sha256="028f23a0ef5f63a611adce2b4fbc2270d6605918fda1db11c38f28cfdc15888b",
    ),
    FolderLayout((ParquetFiles.find,), (), "train*.parquet and test*.parquet of SVHN's first 4,434 and 1,952 digits"),
    "It is a part of SVHN that was cut anew from the full-number pictures, and no address publishes it; "
    "name the folder with its two Parquet files.",
)
"""The first 4,434 training and 1,952 test digits of SVHN.  Its hash is that of the copy that this project uses; it was
compared with official crops of four digits only, so it is SVHN's content as far as is known."""


def svhn_prefix(folder: Path | None = None) -> Dataset:
    """SVHN prefix: 4,034 train, 400 validation, 1,952 test digits.  Raises DataError as `svhn` does."""
    return SVHN_PREFIX.load(folder)


def svhn(folder: Path | None = None) -> Dataset:
    """SVHN's cropped digits without the extra images: 68,257 train, 5,000 validation, 26,032 test.

    folder  the .mat files or Parquet; None tries `SVHN.sources()` in order
    Raises DataError as `PublishedDataset.load` does.
    """
    return SVHN.load(folder)
