"""A small file of every format that data sets are read from, and the function that reads it."""

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hosnn.data import cache, pictures
from hosnn.data.arrays import read_npz, read_pt
from hosnn.data.cifar_files import CIFAR10_PYTHON, CifarFiles
from hosnn.data.events import read_events
from hosnn.data.idx import read_idx
from hosnn.data.matlab import read_mat
from hosnn.data.own_parquet import read_own_parquet
from hosnn.data.pickles import read_pickle
from tests.data import colour_formats, formats
from tests.reliability.stored import Kind

SPLIT = formats.random_split(4, shape=(1, 6, 6))
COLOUR = formats.random_split(3, shape=(3, 4, 4))


def _written(name: str, content: bytes, folder: Path) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _npz(folder: Path) -> Path:
    np.savez(folder / "file.npz", x=SPLIT.images.numpy(), y=SPLIT.labels.numpy())
    return folder / "file.npz"


def _pt(folder: Path) -> Path:
    torch.save({"x": SPLIT.images, "y": SPLIT.labels}, folder / "file.pt")
    return folder / "file.pt"


def _mat() -> bytes:
    pixels = bytes(range(48))
    return colour_formats.mat_bytes(colour_formats.mat_array("X", (4, 4, 3, 1), 2, pixels))


EVENTS = b"".join(bytes((at % 34, at % 30, at % 2 << 7, at, at)) for at in range(40))


def _read_cifar(path: Path) -> Any:
    contents = CifarFiles(CIFAR10_PYTHON, path).read(colour_formats.TINY_COLOUR)
    return len(contents.train), len(contents.test)


def _picture(name: str, folder: Path) -> Path:
    return _written("picture", formats.encoded(COLOUR.images[0], name), folder)


def _read_picture(path: Path) -> Any:
    return pictures.decode(path.read_bytes(), "picture").pixels.dtype


def _decoded(path: Path) -> Any:
    """What was decoded, from the file if it is whole."""
    return {name: tensor.tolist() for name, tensor in (cache._read(path) or DECODED).items()}


DECODED = {"images": SPLIT.images, "labels": SPLIT.labels}


def _cache_entry(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "folder", lambda: folder)
        cache.decoded((), lambda: DECODED, cache.WORTH)
        return cache.entries()[0]


DATA_KINDS = {
    "npz": Kind(_npz, lambda path: len(read_npz(path).images)),
    "pt": Kind(_pt, lambda path: len(read_pt(path).images)),
    "parquet": Kind(
        lambda folder: formats.write_parquet(folder / "file.parquet", SPLIT),
        lambda path: len(read_own_parquet([path]).images),
    ),
    "idx": Kind(
        lambda folder: _written("file-idx3", formats.idx_bytes(SPLIT.images[:, 0]), folder),
        lambda path: read_idx(path, (None, 6, 6)).shape[1:],
    ),
    "mat": Kind(
        lambda folder: _written("file.mat", _mat(), folder), lambda path: read_mat(path, {"X": (4, 4, 3, 1)})["X"].shape
    ),
    "pickle": Kind(
        lambda folder: _written("batch", colour_formats.pickled_batch(COLOUR), folder),
        lambda path: read_pickle(path.read_bytes(), 48, "batch", labels="labels").images.shape[1],
    ),
    "gzipped idx": Kind(
        lambda folder: _written("file-idx3.gz", gzip.compress(formats.idx_bytes(SPLIT.images[:, 0])), folder),
        lambda path: read_idx(path, (None, 6, 6)).tolist(),
    ),
    "cifar archive": Kind(
        lambda folder: colour_formats.write_archive(folder, CIFAR10_PYTHON) / CIFAR10_PYTHON.archive, _read_cifar
    ),
    "recording": Kind(
        lambda folder: _written("1.bin", EVENTS, folder),
        lambda path: read_events(path.read_bytes(), (34, 34), "1").x.max(),
    ),
    **{name: Kind(partial(_picture, name), _read_picture) for name in pictures.FORMATS},
    "cache": Kind(_cache_entry, _decoded),
}
