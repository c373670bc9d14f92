"""A tiny colour data set of two classes, and writers of the formats that CIFAR and SVHN are published in."""

import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hosnn.data import catalogue, cifar
from hosnn.data.cifar_files import CifarVersion
from hosnn.data.hashes import file_hash
from hosnn.data.specification import Specification
from hosnn.data.split import Split, content_sha256

from .formats import CLASSES, random_split

COLOUR = (3, 32, 32)
TRAIN_LABELS = torch.tensor([0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0])  # no two batches alike
TRAIN = Split.in_order(random_split(20, seed=3, shape=COLOUR).images, TRAIN_LABELS)
TEST = random_split(8, seed=4, shape=COLOUR)
TINY_COLOUR = Specification(
    name="tiny-colour",
    classes=CLASSES,
    image_shape=COLOUR,
    train_size=20,
    test_size=8,
    validation_size=4,
    sha256=content_sha256(TRAIN, TEST),
)


def stand_in_for_cifar(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The tiny set stands for CIFAR-10 and CIFAR-100."""
    for name in ("CIFAR10", "CIFAR100"):
        publication = getattr(cifar, name)
        specification = replace(TINY_COLOUR, name=publication.specification.name, **changes)
        stand_in = replace(publication, specification=specification)
        monkeypatch.setattr(cifar, name, stand_in)
        monkeypatch.setitem(catalogue.IMAGES, specification.name, stand_in)


def hashes(*paths: Path) -> dict[str, str]:
    return {path.name: file_hash(path, "0" * 64) for path in paths}


def batches(split: Split, count: int) -> list[Split]:
    return [split.subset(rows) for rows in torch.arange(len(split)).chunk(count)]


def _string(text: bytes) -> bytes:
    return b"U" + bytes((len(text),)) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def _number(value: int) -> bytes:
    return b"K" + bytes((value,)) if value < 256 else b"M" + struct.pack("<H", value)


def _list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def pickled_array(pixels: Tensor) -> bytes:
    """[N, P] uint8 as numpy under Python 2 pickled it, in the middle of a pickle."""
    return b"".join(
        (
            *(b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85", _string(b"b"), b"\x87R"),
            *(b"(K\x01", *map(_number, pixels.shape), b"\x86cnumpy\ndtype\nq\x08", _string(b"u1"), b"K\x00K\x01\x87R"),
            *(b"(K\x03", _string(b"|"), b"NNN", b"J\xff\xff\xff\xff" * 2, b"K\x00tb"),
            *(b"\x89", _string(pixels.numpy().tobytes()), b"tb"),
        )
    )


def pickled_batch(split: Split, *, hundred: bool = False) -> bytes:
    """The bytes of a batch as Python 2 wrote CIFAR-10's (or CIFAR-100's, with labels of two kinds)."""
    labels = _list([_number(label) for label in split.labels.tolist()])
    keyed = {b"labels": labels}
    if hundred:
        keyed = {b"coarse_labels": _list([_number(7)] * len(split)), b"fine_labels": labels}
    entries = {
        b"batch_label": _string(b"training batch 1 of 5"),
        **keyed,
        b"data": pickled_array(split.images.flatten(1)),
        b"filenames": _list([_string(b"a.png")] * len(split)),
    }
    return b"\x80\x02}q\x01(" + b"".join(_string(key) + value for key, value in entries.items()) + b"u."


def binary_batch(split: Split, *, hundred: bool = False) -> bytes:
    coarse = [torch.full((len(split), 1), 7, dtype=torch.uint8)] if hundred else []
    return torch.cat([*coarse, split.labels.byte()[:, None], split.images.flatten(1)], 1).numpy().tobytes()


def write_cifar(folder: Path, version: CifarVersion, train: Split = TRAIN, test: Split = TEST) -> Path:
    """All of a version's files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write = binary_batch if version.test[0].endswith(".bin") else pickled_batch
    parts = [*batches(train, len(version.train)), test]
    for name, part in zip((*version.train, *version.test), parts, strict=True):
        (folder / name).write_bytes(write(part, hundred="100" in version.folder))
    return folder


def write_archive(folder: Path, version: CifarVersion) -> Path:
    """A version's archive in `folder`, batches in no particular order, and another file beside them."""
    files = write_cifar(folder / "unpacked" / version.folder, version)
    (files / "readme.html").write_text("hello")
    with tarfile.open(folder / version.archive, "w:gz") as archive:
        for path in (files, *sorted(files.iterdir(), reverse=True)):
            archive.add(path, f"{version.folder}/{path.name}" if path != files else version.folder, recursive=False)
            if path != files:
                path.unlink()
    return folder


def _element(kind: int, content: bytes) -> bytes:
    if 0 < len(content) <= 4:
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def mat_array(name: str, shape: tuple[int, ...], kind: int, content: bytes, *, flags: int = 9) -> bytes:
    """An array of a MATLAB 5 file; kind is the type its numbers are stored in, flags say which class it has."""
    parts = (
        _element(6, struct.pack("<II", flags, 0)),
        _element(5, struct.pack(f"<{len(shape)}i", *shape)),
        _element(1, name.encode()),
        _element(kind, content),
    )
    return struct.pack("<II", 14, sum(map(len, parts))) + b"".join(parts)


def mat_bytes(*arrays: bytes, compressed: bool = True) -> bytes:
    header = b"MATLAB 5.0 MAT-file, written by a test".ljust(124) + b"\x00\x01IM"
    packed = [zlib.compress(array) for array in arrays]
    elements = [struct.pack("<II", 15, len(array)) + array for array in packed] if compressed else list(arrays)
    return header + b"".join(elements)


def svhn_bytes(split: Split, *, compressed: bool = True) -> bytes:
    """X [H, W, C, N], first index fastest, and y [N, 1] with 10 for the digit 0, doubles stored as bytes."""
    size = len(split)
    numbers = torch.where(split.labels == 0, 10, split.labels).byte().numpy().tobytes()
    pixels = split.images.permute(0, 1, 3, 2).contiguous().numpy().tobytes()  # N slowest, then C, W and H
    return mat_bytes(
        mat_array("X", (*split.images.shape[2:], split.images.shape[1], size), 2, pixels),
        mat_array("y", (size, 1), 2, numbers, flags=6),
        compressed=compressed,
    )


def write_svhn(folder: Path, *, compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_32x32.mat").write_bytes(svhn_bytes(TRAIN, compressed=compressed))
    (folder / "test_32x32.mat").write_bytes(svhn_bytes(TEST, compressed=compressed))
    return folder
