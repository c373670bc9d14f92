"""N-MNIST (Orchard et al. 2015): handwritten digits as an event camera sees them, 34x34, ten classes.

A data set's name tells how events become frames, for results depend on it: `nmnist:steps=10,bins=time,values=counts`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hosnn.data.cache import decoded
from hosnn.data.dataset import Dataset
from hosnn.data.events import Binning, frames_of, read_events
from hosnn.data.naming import natural
from hosnn.data.parquet import EVENTS, ParquetFiles
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import Contents, DatasetFiles, FolderLayout
from hosnn.data.specification import Specification
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError

SIZE = (34, 34)
CLASSES = tuple("0123456789")
TRAIN, TEST = "Train", "Test"


@dataclass(frozen=True)
class RecordingFiles:
    """The original layout: Train/0/00002.bin .. Train/9/..., Test/0/..., one recording a file.

    The number in a file's name is its position in MNIST, from 1.
    """

    folder: Path
    binning: Binning

    @classmethod
    def find(cls, binning: Binning, folder: Path) -> Self | None:
        """The recordings in `folder`; None if neither Train nor Test is there, DataError if one is missing."""
        missing = [name for name in (TRAIN, TEST) if not (folder / name / "0").is_dir()]
        if len(missing) == 1:
            raise DataError(f"{folder} lacks {missing[0]}/0 to {missing[0]}/9; unpack both of N-MNIST's archives there")
        return None if missing else cls(folder, binning)

    def __str__(self) -> str:
        return f"recordings in {self.folder}"

    def read(self, specification: Specification) -> Contents:
        """Train and test.  Raises DataError naming the file that is not as specified."""
        splits: list[Split] = []
        for name, size in ((TRAIN, specification.train_size), (TEST, specification.test_size)):
            files = [
                (path, label)
                for label in range(len(CLASSES))
                for path in sorted((self.folder / name / str(label)).glob("*.bin"), key=natural)
            ]
            if len(files) != size:
                raise DataError(f"{self.folder / name} has {len(files)} recordings, expected {size}; unpack it again")
            paths = [path for path, _ in files]
            frames = decoded(tuple(paths), partial(_frames, paths, self.binning), size, "N-MNIST", str(self.binning))[
                "frames"
            ]
            labels = torch.tensor([label for _, label in files], dtype=torch.int64)
            index = torch.tensor([int(path.stem) - 1 if path.stem.isdigit() else -1 for path in paths])
            split = Split(frames, labels, index, specification.divisor)
            check_split(split, specification.image_shape, len(CLASSES), str(self.folder / name))
            splits.append(split)
        train, test = splits
        return Contents(train, test)


def _frames(paths: list[Path], binning: Binning) -> dict[str, Tensor]:
    decode = event_decoder(binning, (binning.steps, 2, *SIZE))
    try:
        return {"frames": torch.from_numpy(np.stack([decode(path.read_bytes(), str(path))[0] for path in paths]))}
    except OSError as error:
        raise DataError(f"a recording cannot be read ({error}); get it again") from error


def event_decoder(binning: Binning, shape: tuple[int, ...]) -> Callable[[bytes, str], tuple[NDArray[np.uint8], bool]]:
    """A recording's bytes to frames of `shape` [T, 2, H, W]; nothing of an event is lost but its place in a bin."""
    height, width = shape[-2:]

    def decode(encoded: bytes, origin: str) -> tuple[NDArray[np.uint8], bool]:
        return frames_of(read_events(encoded, (height, width), origin), (height, width), binning), True

    return decode


def _find_parquet(binning: Binning, folder: Path) -> DatasetFiles | None:
    files = ParquetFiles.find(folder)
    return None if files is None else replace(files, content=EVENTS, decoder=partial(event_decoder, binning))


def _publication(name: str, train: int, test: int, validation: int, binning: Binning) -> PublishedDataset:
    whole = "Train/0 to Train/9 and Test/0 to Test/9 with the original .bin files"
    return PublishedDataset(
        Specification(
            name=name if binning == Binning() else f"{name}:{binning}",
            classes=CLASSES,
            image_shape=(binning.steps, 2, *SIZE),
            train_size=train,
            test_size=test,
            validation_size=validation,
            sha256=None,
            divisor=binning.divisor,
        ),
        FolderLayout(
            (partial(RecordingFiles.find, binning), partial(_find_parquet, binning)),
            ("N-MNIST", "NMNIST"),
            f"{whole}, or train*.parquet and test*.parquet with a column `events`",
        ),
        f"Unpack N-MNIST's two archives into one folder ({whole}) and name it.",
    )


def nmnist(binning: Binning = Binning(), folder: Path | None = None) -> Dataset:  # noqa: B008
    """All of N-MNIST: 55,000 train, 5,000 validation, 10,000 test recordings, as frames [T, 2, 34, 34] in [0, 1].

    Raises DataError as `PublishedDataset.load` does.
    """
    return publication(binning).load(folder)


def nmnist_small(binning: Binning = Binning(), folder: Path | None = None) -> Dataset:  # noqa: B008
    """The first 1,000 training recordings, 100 of them for validation, and the first 100 test recordings.

    Raises DataError as `PublishedDataset.load` does.
    """
    return publication(binning, small=True).load(folder)


def publication(binning: Binning = Binning(), small: bool = False) -> PublishedDataset:  # noqa: B008
    """N-MNIST, or its first recordings, as frames of a binning."""
    if small:
        return _publication("nmnist-small", 1_000, 100, 100, binning)
    return _publication("nmnist", 60_000, 10_000, 5_000, binning)
