"""Parquet files in the Hugging Face convention: encoded pictures, or recordings of events, with their labels.

Columns: `image` (or `img`) struct{bytes, path}, or `events` in its place; `label` (or `fine_label`) integer; optionally
`index` integer, the original position.
Legend: N rows, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from hosnn.data.cache import decoded
from hosnn.data.naming import natural
from hosnn.data.pictures import decode
from hosnn.data.sources import Contents
from hosnn.data.specification import Specification
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError
from hosnn.files import parse_json

BATCH_ROWS = 1024
IMAGE, EVENTS, LABEL, INDEX = ("image", "img"), ("events",), ("label", "fine_label"), ("index",)

READ_ERRORS = (OSError, UnicodeError, pa.ArrowException)
"""What reading a damaged file raises; UnicodeError for the names of its columns."""

Decode = Callable[[bytes, str], tuple[NDArray[np.uint8], bool]]
"""(encoded, name for messages) -> an array of one shape for all, and whether the encoding is lossless."""


class Columns(NamedTuple):
    """The names of a file's columns; `position` is "" where there is none."""

    content: str
    label: str
    position: str


def read_split(
    paths: tuple[Path, ...],
    specification: Specification,
    size: int,
    content: tuple[str, ...] = IMAGE,
    decoder: Decode | None = None,
) -> tuple[Split, int]:
    """One split from Parquet files, in the order given, and how many of its pictures came in a lossy encoding.

    size     rows of all files together
    content  the column to decode, by the first of these names
    decoder  None: pictures of the specification's size and channels
    Beside the result, memory holds 1024 encoded pictures at a time.
    Raises DataError for a damaged or cut-off file, a missing column, a picture that does not decode or has another
    size or mode, a label out of range.
    """
    shape = specification.image_shape
    images = np.empty((size, *shape), np.uint8)
    labels, index, lossy, filled = np.empty(size, np.int64), np.arange(size), 0, 0
    for row, origin, encoded in rows_of(paths, content, specification.label_names):
        if filled == size:
            raise DataError(f"{origin}: more rows than the {size} expected; is this another data set?")
        images[filled], exact = (decoder or picture_decoder(shape))(encoded, origin)
        labels[filled] = row.label
        index[filled] = filled if row.position is None else row.position
        lossy += not exact
        filled += 1
    named = ", ".join(map(str, paths))
    if filled != size:
        raise DataError(f"{named}: {filled} rows, expected {size}; are some of the split's files missing?")
    split = Split(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(index), specification.divisor)
    check_split(split, shape, len(specification.classes), named)
    return split, lossy


class Row(NamedTuple):
    """A picture's label and its original position, None if the file does not say."""

    label: int
    position: int | None


def rows_of(
    paths: tuple[Path, ...], content: tuple[str, ...], labels: tuple[str, ...] = LABEL
) -> Iterator[tuple[Row, str, bytes]]:
    """Label and position, a name for messages and the encoded bytes of every row.  Raises DataError as `read_split`."""
    for path in paths:
        try:
            # Closes the file also when a check below raises.
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                columns = _columns(path, file.schema_arrow, content, labels)
                number = 0
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[name for name in columns if name]):
                    numbered = _integers(batch, columns.label, path)
                    places = _integers(batch, columns.position, path) if columns.position else None
                    for at, encoded in enumerate(batch.column(columns.content).field("bytes")):
                        origin = f"{path}, row {number}"
                        if not encoded.is_valid:
                            raise DataError(f"{origin}: the {columns.content} has no bytes, expected embedded ones")
                        place = None if places is None else int(places[at])
                        yield Row(int(numbered[at]), place), origin, encoded.as_py()
                        number += 1
        except READ_ERRORS as error:
            raise cannot_read(path, error) from error


def cannot_read(path: Path, error: Exception) -> DataError:
    """The error for a Parquet file that is damaged."""
    return DataError(f"{path} cannot be read as Parquet ({error}), expected a whole, undamaged file; get it again")


def picture_decoder(shape: tuple[int, ...]) -> Decode:
    """Pictures of `shape` [C, H, W], in grey (C = 1) or RGB (C = 3)."""
    channels, height, width = shape

    def decode_picture(encoded: bytes, origin: str) -> tuple[NDArray[np.uint8], bool]:
        picture = decode(encoded, origin, (height, width))
        if picture.pixels.shape[2] != channels:
            kind = {1: "grey", 3: "in RGB"}
            raise DataError(
                f"{origin}: the picture is {kind[picture.pixels.shape[2]]}, expected {channels} channels; is this "
                "another data set?"
            )
        return picture.pixels.transpose(2, 0, 1), picture.exact

    return decode_picture


def class_names(path: Path) -> tuple[str, ...]:
    """The names that a file written by the Hugging Face libraries gives its labels; () if it gives none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        features = parse_json(metadata[b"huggingface"])["info"]["features"]
        return next(tuple(map(str, features[name]["names"])) for name in LABEL if "names" in features.get(name, {}))
    except (*READ_ERRORS, KeyError, ValueError, TypeError, AttributeError, StopIteration):
        return ()


def _columns(path: Path, schema: pa.Schema, content: tuple[str, ...], labels: tuple[str, ...]) -> Columns:
    def holds_bytes(kind: pa.DataType) -> bool:
        return pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind)

    columns = Columns(
        *(next((name for name in names if name in schema.names), "") for names in (content, labels, INDEX))
    )
    integers = [name for name in (columns.label, columns.position) if name]
    if not (columns.content and columns.label and holds_bytes(schema.field(columns.content).type)) or not all(
        pa.types.is_integer(schema.field(name).type) for name in integers
    ):
        came = ", ".join(f"{field.name}: {field.type}" for field in schema)
        advice = "rename or rewrite them"
        if "events" in schema.names and content == IMAGE:
            advice = f"for recordings of events give --data nmnist --data-folder {path.parent}"
        raise DataError(
            f"{path} has columns {came}; expected {content[0]}: struct<bytes, path>, {labels[0]}: integer and, if any, "
            f"index: integer (the Hugging Face convention); {advice}"
        )
    return columns


def _integers(batch: pa.RecordBatch, name: str, path: Path) -> NDArray[np.int64]:
    column = batch.column(name)
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} rows have no {name}, expected an integer in each; get it again")
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)


@dataclass(frozen=True)
class ParquetFiles:
    """The files of a train and a test split, each in order.

    content  names of the column with pictures or recordings
    decoder  makes a decoder of them for a shape; what it is called tells cached results apart
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    content: tuple[str, ...] = IMAGE
    decoder: Callable[[tuple[int, ...]], Decode] = picture_decoder

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """train*.parquet and test*.parquet in `folder`, in natural order (train-2 before train-10).

        None if neither is there; raises DataError if one is missing."""
        train, test = (tuple(sorted(folder.glob(f"{name}*.parquet"), key=natural)) for name in ("train", "test"))
        if not train and not test:
            return None
        if not train or not test:
            missing = "test" if train else "train"
            raise DataError(f"{folder} lacks {missing}*.parquet, expected train and test; add what is missing")
        return cls(train, test)

    def __str__(self) -> str:
        return f"Parquet files in {self.train[0].parent}"

    def read(self, specification: Specification) -> Contents:
        """Train and test, and how many of their pictures came in a lossy encoding.

        What was decoded is kept in the cache.  Raises DataError naming the file that is not as specified.
        """

        def decode_both() -> dict[str, Tensor]:
            tensors: dict[str, Tensor] = {}
            lossy = 0
            for name, paths, size in (
                ("train", self.train, specification.train_size),
                ("test", self.test, specification.test_size),
            ):
                split, count = read_split(
                    paths, specification, size, self.content, self.decoder(specification.image_shape)
                )
                tensors |= {f"{name}.{part}": getattr(split, part) for part in ("images", "labels", "index")}
                lossy += count
            return tensors | {"lossy": torch.tensor(lossy)}

        asked: tuple[Any, ...] = (specification.name, specification.image_shape, specification.label_names)
        sizes = (specification.train_size, specification.test_size, len(self.train))
        tensors = decoded((*self.train, *self.test), decode_both, sum(sizes[:2]), "parquet", *asked, *sizes)
        train, test = (
            Split(tensors[f"{name}.images"], tensors[f"{name}.labels"], tensors[f"{name}.index"], specification.divisor)
            for name in ("train", "test")
        )
        return Contents(train, test, int(tensors["lossy"]))
