"""Decoded data sets kept on disk, so that pictures are decoded once: bounded, and easily cleared.

An entry is one safetensors file named by the hash of what it was decoded from; the least recently used ones leave
first.  Nothing depends on the cache: a damaged or missing entry is decoded again, an unwritable folder is left alone.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hosnn.errors import ConfigError, HosnnError
from hosnn.files import replacing
from hosnn.places import cache_folder

VERSION = "decoded-2"
"""Part of every entry's name; a change of what decoding gives changes it."""

BOUND = 4 << 30
"""Bytes that all entries together may take, unless HOSNN_DECODED_BYTES says otherwise."""


WORTH = 5_000
"""Pictures from which on decoding takes longer than reading what was kept."""


def decoded(
    paths: tuple[Path, ...], decode: Callable[[], Mapping[str, Tensor]], pictures: int, *settings: object
) -> dict[str, Tensor]:
    """What `decode()` gives for these files: from the cache if it holds it, else decoded and, if worth it, kept there.

    pictures  how many there are to decode
    settings  whatever else decides the result; printed into the entry's name
    """
    place = _place(paths, settings) if pictures >= WORTH else None
    if place is None:
        return dict(decode())
    known = _read(place)
    if known is not None:
        return known
    tensors = {name: tensor.contiguous() for name, tensor in decode().items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size <= bound():
        with contextlib.suppress(HosnnError, OSError):  # a full disk costs the next run its time, not this one its data
            make_room(size)
            with replacing(place) as temporary:
                save_file(tensors, temporary, {"checksum": _checksum(tensors)})
    return tensors


def bound() -> int:
    """Bytes that the cache may take; 0 for no cache.  Raises ConfigError if HOSNN_DECODED_BYTES is no number."""
    text = os.environ.get("HOSNN_DECODED_BYTES")
    if text is None:
        return BOUND
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable HOSNN_DECODED_BYTES is {text!r}; expected a number of bytes, 0 for no cache"
        )
    return int(text)


def folder() -> Path:
    """Where entries are kept."""
    return cache_folder() / "decoded"


def entries() -> list[Path]:
    """The files of the cache, the least recently used first."""
    with contextlib.suppress(OSError):
        return sorted(folder().glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    return []


def clear() -> int:
    """Remove all entries; returns the bytes freed."""
    return _remove(entries(), keep=0)


def make_room(size: int) -> None:
    """Remove the least recently used entries until `size` bytes more fit into the bound."""
    _remove(entries(), keep=max(0, bound() - size))


def _remove(paths: list[Path], keep: int) -> int:
    """Remove files from the front of the list until the others take at most `keep` bytes; returns the bytes freed."""
    sizes = {path: path.stat().st_size for path in paths}
    freed, total = 0, sum(sizes.values())
    for path, size in sizes.items():
        if total - freed <= keep:
            break
        path.unlink(missing_ok=True)
        freed += size
    return freed


def _place(paths: tuple[Path, ...], settings: tuple[object, ...]) -> Path | None:
    """The entry's file; None where nothing can be kept."""
    if bound() == 0:
        return None
    try:
        digest = hashlib.sha256(repr((VERSION, settings)).encode())
        for path in paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return folder() / f"{digest.hexdigest()}.safetensors"
    except OSError:  # whoever decodes the file will say what is wrong with it
        return None


def _read(place: Path) -> dict[str, Tensor] | None:
    """The tensors of an entry; None if there is none, or a damaged one."""
    try:
        with safe_open(place, "pt") as entry:
            tensors = {name: entry.get_tensor(name) for name in entry.keys()}
            metadata = entry.metadata() or {}
        if metadata.get("checksum") != _checksum(tensors):
            return None
        os.utime(place)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # TypeError: numbers that NumPy does not know
        return None
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of names, types, shapes and numbers."""
    checksum = 0
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.numpy().data, checksum)
    return str(checksum)
