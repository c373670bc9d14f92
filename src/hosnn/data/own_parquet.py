"""Parquet files of one's own, with pictures of any one size and any number of classes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hosnn.data.cache import decoded
from hosnn.data.naming import natural
from hosnn.data.parquet import IMAGE, READ_ERRORS, cannot_read, class_names, picture_decoder, rows_of
from hosnn.data.parts import Parts
from hosnn.data.pictures import decode
from hosnn.errors import DataError

PREFIXES = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
"""By which files of a folder belong to a part; where no name begins so, all files are one pile."""


def read_own_parquet(paths: list[Path]) -> Parts:
    """Pictures and labels of Parquet files in natural order, a part by the beginning of a file's name.

    Raises DataError as `parquet.read_split` does, and if only some files say which part they are.
    """
    parted: dict[str, list[Path]] = {}
    for path in sorted(paths, key=natural):
        part = next((part for prefix, part in PREFIXES.items() if path.name.casefold().startswith(prefix)), "all")
        parted.setdefault(part, []).append(path)
    if parted.keys() != {"all"} and ("all" in parted or not {"train", "test"} <= parted.keys()):
        raise DataError(
            f"{paths[0].parent} holds {', '.join(path.name for path in sorted(paths, key=natural)[:6])}; expected "
            "train*, test* and perhaps validation*.parquet and nothing else, or one pile without such names"
        )
    images, labels, lossy = {}, {}, 0
    for part, files in parted.items():
        count = sum(_rows(path) for path in files)
        tensors = decoded(tuple(files), lambda files=files: _decoded(files), count, "own Parquet")  # type: ignore[misc]
        images[part], labels[part] = tensors["images"], tensors["labels"]
        lossy += int(tensors["lossy"])
    origin = str(paths[0].parent if len(paths) > 1 else paths[0])
    return Parts(images=images, labels=labels, classes=class_names(paths[0]), lossy=lossy, origin=origin)


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except READ_ERRORS as error:
        raise cannot_read(path, error) from error


def _decoded(paths: list[Path]) -> dict[str, Tensor]:
    """`images` [N, C, H, W] uint8, `labels` [N], and how many pictures came in a `lossy` encoding."""
    pictures, labels, lossy = [], [], 0
    decoder = None
    for row, origin, encoded in rows_of(tuple(paths), IMAGE):
        if decoder is None:
            height, width, channels = decode(encoded, origin).pixels.shape
            decoder = picture_decoder((channels, height, width))
        pixels, exact = decoder(encoded, origin)
        pictures.append(pixels)
        labels.append(row.label)
        lossy += not exact
    if not pictures:
        raise DataError(f"{paths[0]} has no rows; expected pictures with labels")
    return {
        "images": torch.from_numpy(np.stack(pictures)),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "lossy": torch.tensor(lossy),
    }
