"""Tensors in safetensors files: their header is checked before any content is read.

Format: https://huggingface.co/docs/safetensors, eight bytes with the header's length, a JSON header, the numbers.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from hosnn.files import parse_json, regular_size

LARGEST_HEADER = 8 << 20
"""Bytes; that of a network of 10,000 tensors has 1 MB."""

REAL = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of real numbers in which networks and signatures are stored, by their name in files."""

TYPES = {**REAL, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


class Entry(NamedTuple):
    """A tensor as the header describes it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorFileError(ValueError):
    """A file that is no safetensors file, or damaged."""


class Header(NamedTuple):
    """Tensors by their name, and the text beside them."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file; of the numbers nothing is read.  Raises OSError or TensorFileError."""
    try:
        size = regular_size(path)
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(size - 8, LARGEST_HEADER):
                raise TensorFileError(f"its header claims {length:,} bytes of {size:,}")
            content = parse_json(file.read(length))
        metadata = content.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise TensorFileError("its metadata are not text")
        tensors = {name: _entry(name, description) for name, description in content.items()}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TensorFileError(f"{error or type(error).__name__}") from error
    return Header(tensors, metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.  Raises OSError or TensorFileError."""
    read_header(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise TensorFileError(str(error)) from error


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of these tensors, always the same bytes; the library writes metadata in random order."""
    written = serialise({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata))
    length = struct.unpack("<Q", written[:8])[0]
    header = json.loads(written[8 : 8 + length])
    ordered = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    text = json.dumps(
        ordered | {name: header[name] for name in header if name != "__metadata__"}, separators=(",", ":")
    )
    padded = text.encode() + b" " * (-len(text.encode()) % 8)
    return struct.pack("<Q", len(padded)) + padded + written[8 + length :]


def _entry(name: str, description: Mapping[str, object]) -> Entry:
    shape, dtype = description["shape"], description["dtype"]
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise TensorFileError(f"{name} has the shape {shape!r}")
    if dtype not in TYPES:
        raise TensorFileError(f"{name} has numbers of type {dtype!r}; expected one of {', '.join(TYPES)}")
    return Entry(tuple(shape), TYPES[str(dtype)])
