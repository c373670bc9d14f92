"""IDX files, the format of MNIST and its kin: a magic number, big-endian sizes, then the bytes of the array.

Format: http://yann.lecun.com/exdb/mnist/.  Legend: N rows, C channels, H height, W width.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

import torch
from torch import Tensor

from hosnn.data.hashes import verify_published_hash
from hosnn.data.sources import Contents
from hosnn.data.specification import Specification
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError

UNSIGNED_BYTE = 0x08
CHUNK = 1 << 20
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path, shape: tuple[int | None, ...]) -> Tensor:
    """An IDX file of unsigned bytes, plain or gzipped (decided by content, not by name).

    shape    the shape that the header must state; None accepts any size
    returns  uint8 tensor of that shape
    Raises DataError for a wrong magic number or size, a cut-off or damaged file, or bytes left over.
    """
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not gzipped:
                return _read_array(raw, path, shape)
            with gzip.open(raw) as unzipped:
                return _read_array(cast(IO[bytes], unzipped), path, shape)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an IDX file ({error}), expected a whole file, plain or gzipped; get it again"
        ) from error


def _read_array(stream: IO[bytes], path: Path, shape: tuple[int | None, ...]) -> Tensor:
    header = stream.read(4 + 4 * len(shape))
    magic = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    if header[:4] != magic:
        raise DataError(
            f"{path} starts with {header[:4].hex() or 'nothing'}, expected the magic number {magic.hex()} of an IDX "
            f"file with {len(shape)} dimensions; is it another file under this name?"
        )
    if len(header) < 4 + 4 * len(shape):
        raise DataError(f"{path} ends within its header; get it again")
    sizes = struct.unpack(f">{len(shape)}I", header[4:])
    if any(required not in (None, size) for size, required in zip(sizes, shape, strict=True)):
        expected = ["any" if size is None else size for size in shape]
        raise DataError(f"{path} has a header for {list(sizes)}, expected {expected}; is this another data set?")
    count, content = math.prod(sizes), bytearray()
    # In chunks, because a header may claim more than fits in memory; one byte too far, to detect bytes left over.
    while chunk := stream.read(min(CHUNK, count + 1 - len(content))):
        content += chunk
    if len(content) != count:
        length = f"only {len(content)}" if len(content) < count else "more"
        raise DataError(
            f"{path} holds {length} bytes after its header, expected {count} for {list(sizes)}; get it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(sizes) if count else torch.empty(sizes).byte()


@dataclass(frozen=True)
class IdxFiles:
    """The four files of an MNIST-like data set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The four files in `folder` under their usual names, each plain or .gz; None if there are none of them.

        Raises DataError if some are missing.
        """
        candidates = [[folder / stem, folder / f"{stem}.gz"] for stem in STEMS]
        present = [next((path for path in pair if path.is_file()), None) for pair in candidates]
        paths = [path for path in present if path is not None]
        if not paths:
            return None
        if len(paths) < len(STEMS):
            missing = ", ".join(stem for stem, path in zip(STEMS, present, strict=True) if path is None)
            raise DataError(
                f"{folder} lacks {missing} (plain or .gz), expected all four IDX files; add what is missing"
            )
        return cls(*paths)

    def __str__(self) -> str:
        return f"IDX files in {self.train_images.parent}"

    def read(self, specification: Specification) -> Contents:
        """Train and test.  Raises DataError naming the file that is not as specified."""
        files = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        # Where the content has a hash of its own that one decides: packages gzip these files anew.
        vouched = specification.sha256 is None and all(verify_published_hash(path, specification) for path in files)
        return Contents(
            _read_split(self.train_images, self.train_labels, specification.train_size, specification),
            _read_split(self.test_images, self.test_labels, specification.test_size, specification),
            vouched=vouched,
        )


def _read_split(images: Path, labels: Path, size: int, specification: Specification) -> Split:
    height_width = specification.image_shape[1:]
    split = Split.in_order(
        read_idx(images, (size, *height_width)).unsqueeze(1),  # [N, H, W] -> [N, 1, H, W]
        read_idx(labels, (size,)).long(),
    )
    check_split(split, specification.image_shape, len(specification.classes), f"{images} and {labels.name}")
    return split
