"""CIFAR's own files: batches as Python pickles or as binary records, in a folder or in the archive they come in.

FolderLayout: https://www.cs.toronto.edu/~kriz/cifar.html.  Legend: N images, C channels, H height, W width.
"""

import math
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from hosnn.data.pickles import Batch, read_pickle
from hosnn.data.sources import Contents
from hosnn.data.specification import Specification
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError

LARGEST_BATCH = 1 << 28  # bytes; the largest of CIFAR's is 155 MB


def read_records(content: bytes, numbers: int, origin: str, *, label_bytes: int) -> Batch:
    """A batch from binary records: the label's bytes, the last of which is the label, then the image.

    numbers  C x H x W
    Raises DataError if `content` is not whole records.
    """
    record = label_bytes + numbers
    if not content or len(content) % record:
        raise DataError(
            f"{origin} has {len(content)} bytes, expected a multiple of {record} ({label_bytes} for the label, "
            f"{numbers} for the image); it is cut off or another file: get it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return Batch(rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64))


@dataclass(frozen=True)
class CifarVersion:
    """One of the forms in which CIFAR is published.

    archive, folder  names of the archive and of the folder inside it
    train, test      file names of the batches of each split, in order
    decode           (a file's bytes, C x H x W, a name for messages) -> the batch
    """

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    decode: Callable[[bytes, int, str], Batch]


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10_PYTHON = CifarVersion(
    "cifar-10-python.tar.gz", "cifar-10-batches-py", _FIVE, ("test_batch",), partial(read_pickle, labels="labels")
)
CIFAR10_BINARY = CifarVersion(
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"{name}.bin" for name in _FIVE),
    ("test_batch.bin",),
    partial(read_records, label_bytes=1),
)
CIFAR100_PYTHON = CifarVersion(
    "cifar-100-python.tar.gz", "cifar-100-python", ("train",), ("test",), partial(read_pickle, labels="fine_labels")
)
CIFAR100_BINARY = CifarVersion(  # a byte for the coarse label, then one for the fine
    "cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), ("test.bin",), partial(read_records, label_bytes=2)
)


@dataclass(frozen=True)
class CifarFiles:
    """One version's batches.

    path  their folder, or the archive
    """

    version: CifarVersion
    path: Path

    @classmethod
    def find(cls, version: CifarVersion, folder: Path) -> Self | None:
        """The batches in `folder`, else their archive there; None if there is neither.

        Raises DataError if some of the batches are missing.
        """
        names = (*version.train, *version.test)
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return cls(version, folder)
        if (folder / version.archive).is_file():
            return cls(version, folder / version.archive)
        if len(missing) < len(names):
            raise DataError(
                f"{folder} lacks {', '.join(missing)}, expected all of CIFAR's batches; add what is missing"
            )
        return None

    def __str__(self) -> str:
        return f"CIFAR batches in {self.path}"

    def read(self, specification: Specification) -> Contents:
        """Train and test.  Raises DataError naming the file that is not as specified."""
        numbers = math.prod(specification.image_shape)
        batches = {
            name: self.version.decode(content, numbers, f"{self.path}, {name}")
            for name, content in self._contents(specification)
        }
        missing = [name for name in (*self.version.train, *self.version.test) if name not in batches]
        if missing:
            raise DataError(f"{self.path} lacks {', '.join(missing)} in {self.version.folder}/; get it again")
        return Contents(
            self._joined([batches[name] for name in self.version.train], specification.train_size, specification),
            self._joined([batches[name] for name in self.version.test], specification.test_size, specification),
        )

    def _joined(self, batches: list[Batch], size: int, specification: Specification) -> Split:
        images = np.concatenate([batch.images for batch in batches])
        if len(images) != size:
            raise DataError(f"{self.path} has {len(images)} images, expected {size}; is this another data set?")
        split = Split.in_order(
            torch.from_numpy(images).reshape(-1, *specification.image_shape),
            torch.from_numpy(np.concatenate([batch.labels for batch in batches])),
        )
        check_split(split, specification.image_shape, len(specification.classes), str(self.path))
        return split

    def _contents(self, specification: Specification) -> Iterator[tuple[str, bytes]]:
        """Each batch's name and bytes."""
        names = (*self.version.train, *self.version.test)
        try:
            if self.path.is_dir():
                for name in names:
                    yield name, _read_bounded((self.path / name).read_bytes, (self.path / name).stat().st_size, name)
                return
            # Read in place: nothing is unpacked, so no name in the archive can point anywhere.
            with tarfile.open(self.path, "r:gz") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    is_batch = member.isfile() and folder == self.version.folder and name in names
                    stream = archive.extractfile(member) if is_batch else None
                    if stream is not None:
                        yield name, _read_bounded(stream.read, member.size, name)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(
                f"{self.path} cannot be read ({error}), expected CIFAR's batches or their archive; get it again"
            ) from error


def _read_bounded(read: Callable[[], bytes], size: int, name: str) -> bytes:
    if size > LARGEST_BATCH:
        raise DataError(f"{name} has {size} bytes, expected at most {LARGEST_BATCH}; it is not a batch of CIFAR")
    return read()
