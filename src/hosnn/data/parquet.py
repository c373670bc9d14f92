"""Parquet files in the Hugging Face convention: encoded pictures with their labels.

Columns: `image` (or `img`) struct{bytes, path}, `label` (or `fine_label`) integer, and optionally `index` integer, the
original position.
Legend: N rows, C channels, H height, W width.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from hosnn.data.dataset import Specification, Split, check_split
from hosnn.data.hashes import verify_published_hash
from hosnn.errors import DataError

BATCH_ROWS = 1024
MODES = {1: "L", 3: "RGB"}  # by number of channels
FORMATS = ("PNG", "JPEG", "WEBP")  # no other decoder of Pillow is given untrusted bytes
EXACT = ("PNG",)  # keeps every pixel as it was
IMAGE, LABEL, INDEX = ("image", "img"), ("label", "fine_label"), ("index",)  # CIFAR's names on the Hub come second


def read_parquet(
    paths: tuple[Path, ...],
    image_shape: tuple[int, int, int],
    size: int,
    num_classes: int,
    formats: tuple[str, ...] = FORMATS,
) -> Split:
    """One split from one or more Parquet files, in the order given.

    image_shape  [C, H, W] that every picture must have, C = 1 (grey) or 3 (RGB)
    size         N, the rows of all files together
    formats      the encodings a picture may have
    Needs memory for the result and 1024 encoded pictures.
    Raises DataError for a damaged or cut-off file, a missing column, a picture that does not decode or has another
    size or mode, a label out of range.
    """
    channels, height, width = image_shape
    pixels = np.empty((size, height, width, channels), np.uint8)
    labels, index = np.empty(size, np.int64), np.arange(size)
    filled = 0
    for path in paths:
        try:
            # Closes the file also when a check below raises.
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                image, label, position = _columns(path, file.schema_arrow)
                names = [name for name in (image, label, position) if name]
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                    end = filled + len(batch)
                    if end > size:
                        raise DataError(f"{path} has more rows than the {size} expected; is this another data set?")
                    for row, picture in enumerate(batch.column(image).field("bytes"), start=filled):
                        pixels[row] = _decode(picture.as_py(), image_shape, f"{path}, row {row}", formats)
                    labels[filled:end] = _integers(batch, label, path)
                    if position:
                        index[filled:end] = _integers(batch, position, path)
                    filled = end
        except (OSError, UnicodeError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read as Parquet ({error}), expected a whole, undamaged file; get it again"
            ) from error
    file_names = ", ".join(map(str, paths))
    if filled != size:
        raise DataError(f"{file_names}: {filled} rows, expected {size}; are some of the split's files missing?")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # [N, H, W, C] -> [N, C, H, W]
    split = Split(images, torch.from_numpy(labels), torch.from_numpy(index))
    check_split(split, image_shape, num_classes, file_names)
    return split


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str, str]:
    """The names of the columns with pictures, labels and, if there is one (else ""), positions."""

    def is_picture(kind: pa.DataType) -> bool:
        return pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind)

    image, label, position = (
        next((name for name in names if name in schema.names), "") for names in (IMAGE, LABEL, INDEX)
    )
    integers = [name for name in (label, position) if name]
    if not (image and label and is_picture(schema.field(image).type)) or not all(
        pa.types.is_integer(schema.field(name).type) for name in integers
    ):
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise DataError(
            f"{path} has columns {columns}; expected image: struct<bytes, path>, label: integer and, if any, "
            "index: integer (the Hugging Face convention); rename or rewrite them"
        )
    return image, label, position


def _integers(batch: pa.RecordBatch, name: str, path: Path) -> NDArray[np.int64]:
    column = batch.column(name)
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} rows have no {name}, expected an integer in each; get it again")
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)


def _decode(
    encoded: bytes | None, image_shape: tuple[int, int, int], origin: str, formats: tuple[str, ...]
) -> NDArray[np.uint8]:
    channels, height, width = image_shape
    if encoded is None:
        raise DataError(f"{origin}: the image has no bytes, expected an embedded PNG, JPEG or WebP")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            mode_and_size, encoding = (image.mode, *image.size), image.format
            # Checked before any pixel is decoded, because a picture may unpack to gigabytes.
            if mode_and_size == (MODES[channels], width, height) and encoding in formats:
                return np.asarray(image).reshape(height, width, channels)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{origin}: the image does not decode ({error}); get the file again") from error
    if encoding not in formats:
        raise DataError(
            f"{origin}: the image is encoded as {encoding}, which may have changed its pixels, expected "
            f"{' or '.join(formats)} in a file without a published hash; get the original"
        )
    raise DataError(
        f"{origin}: the image is {mode_and_size[1]}x{mode_and_size[2]} in mode {mode_and_size[0]}, expected "
        f"{width}x{height} in mode {MODES[channels]}; is this another data set?"
    )


@dataclass(frozen=True)
class ParquetFiles:
    """The files of a train and a test split, each in order."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """train*.parquet and test*.parquet in `folder`; None if there are none.  Raises DataError if one is missing."""
        train, test = (tuple(sorted(folder.glob(f"{name}*.parquet"))) for name in ("train", "test"))
        if not train and not test:
            return None
        if not train or not test:
            missing = "test" if train else "train"
            raise DataError(f"{folder} lacks {missing}*.parquet, expected train and test; add what is missing")
        return cls(train, test)

    def __str__(self) -> str:
        return f"Parquet files in {self.train[0].parent}"

    def read(self, specification: Specification) -> tuple[Split, Split]:
        """Train and test.  Raises DataError naming the file that is not as specified.

        Files without a published hash must be in a lossless format: JPEG would change the pixels.
        """
        return (
            _read_split(self.train, specification.train_size, specification),
            _read_split(self.test, specification.test_size, specification),
        )


def _read_split(paths: tuple[Path, ...], size: int, specification: Specification) -> Split:
    verified = [verify_published_hash(path, specification) for path in paths]
    num_classes = len(specification.classes)
    return read_parquet(paths, specification.image_shape, size, num_classes, FORMATS if all(verified) else EXACT)
