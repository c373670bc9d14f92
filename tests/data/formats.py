"""A tiny data set of two classes, and writers of the formats that the library only reads."""

import gzip
import io
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from hosnn.data.specification import Specification
from hosnn.data.split import Split, content_sha256

SHAPE = (1, 4, 5)
CLASSES = ("even", "odd")
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def random_split(size: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Split:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, *shape), generator=rng, dtype=torch.uint8)
    return Split.in_order(images, torch.arange(size) % 2)


TRAIN, TEST = random_split(12, seed=1), random_split(6, seed=2)
TINY = Specification(
    name="tiny",
    classes=CLASSES,
    image_shape=SHAPE,
    train_size=12,
    test_size=6,
    validation_size=4,
    sha256=content_sha256(TRAIN, TEST),
)


def idx_bytes(array: Tensor) -> bytes:
    header = bytes((0, 0, 8, array.dim())) + struct.pack(f">{array.dim()}I", *array.shape)
    return header + array.numpy().tobytes()


def write_idx_files(folder: Path, train: Split = TRAIN, test: Split = TEST, *, gzipped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [column for split in (train, test) for column in (split.images.squeeze(1), split.labels.byte())]
    for stem, array in zip(STEMS, arrays, strict=True):
        content = idx_bytes(array)
        if gzipped:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / stem).write_bytes(content)
    return folder


def encoded(image: Tensor, kind: str = "PNG") -> bytes:  # [C, H, W] uint8
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(buffer, kind)
    return buffer.getvalue()


def parquet_table(split: Split, *, with_index: bool = True) -> pa.Table:
    columns = {
        "image": [{"bytes": encoded(image), "path": None} for image in split.images],
        "label": pa.array(split.labels.tolist(), pa.int64()),
    }
    if with_index:
        columns["index"] = pa.array(split.index.tolist(), pa.int32())
    return pa.table(columns)


def write_parquet(path: Path, split: Split, *, with_index: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(parquet_table(split, with_index=with_index), path, write_page_checksum=True)
    return path


def write_parquet_files(folder: Path) -> Path:
    write_parquet(folder / "train.parquet", TRAIN)
    write_parquet(folder / "test.parquet", TEST)
    return folder
