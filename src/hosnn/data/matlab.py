"""MATLAB 5 files (.mat), as far as data sets need them: real numeric arrays, compressed or not, little-endian.

Not SciPy, which would be a large dependency for one data set.  Sizes are known before anything is unpacked, so that a
damaged or hostile file cannot fill the memory.
Format: MathWorks, "MAT-File Format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf, chapter 1.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hosnn.errors import DataError

HEADER_BYTES = 128
COMPRESSED, MATRIX = 15, 14
COMPLEX = 0x800  # flag of an array with an imaginary part
SLACK = 4096  # bytes an array's tags, flags, sizes and name may take
STORAGE = {  # the numbers as they are stored, which may be a smaller type than MATLAB's own
    **{1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"},
}
LONGEST_NUMBER = 8  # bytes


def read_mat(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """The arrays called for, read-only, in the types they are stored in.

    shapes  what each must be, by name; other arrays in the file are passed over
    Raises DataError for another format, a cut-off or damaged file, an absent array or one of another shape.
    """
    longest = LONGEST_NUMBER * max(math.prod(shape) for shape in shapes.values()) + SLACK
    found: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:
            _check_header(file.read(HEADER_BYTES), path)
            for element in _matrices(file, longest):
                name, shape, numbers = _parsed(element)
                if name not in shapes:
                    continue
                if shape != shapes[name]:
                    raise DataError(
                        f"{path} has {name} of shape {list(shape)}, expected {list(shapes[name])}; is this another "
                        "data set?"
                    )
                if numbers.size != math.prod(shape):
                    raise ValueError(f"{name} has {numbers.size} numbers for shape {list(shape)}")
                found[name] = numbers.reshape(shape, order="F")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a MATLAB 5 file ({error}); get it again") from error
    missing = [name for name in shapes if name not in found]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}; is this another data set, or was it cut off?")
    return found


def _check_header(header: bytes, path: Path) -> None:
    if header.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path} is a MATLAB 7.3 file (HDF5), expected MATLAB 5; save it with -v7, or get the original")
    if len(header) < HEADER_BYTES or header[124:] != b"\x00\x01IM":
        raise DataError(
            f"{path} starts with {header[:16]!r}, expected the header of a little-endian MATLAB 5 file; get it again"
        )


def _matrices(file: IO[bytes], longest: int) -> Iterator[memoryview]:
    """The content of each array in the file, cut after `longest` bytes: longer ones are not what is looked for."""
    while tag := file.read(8):
        kind, size = struct.unpack("<II", tag)
        end = file.tell() + size
        if kind == COMPRESSED:
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(file.read(size), longest)
            if not inflater.eof and len(inflated) < longest:
                raise ValueError("it ends within a compressed array")
            if struct.unpack("<II", inflated[:8])[0] == MATRIX:
                yield memoryview(inflated)[8:]
        elif kind == MATRIX:
            content = file.read(min(size, longest))
            if len(content) < min(size, longest):
                raise ValueError("it ends within an array")
            yield memoryview(content)
        file.seek(end)


def _parsed(matrix: memoryview) -> tuple[str, tuple[int, ...], NDArray[Any]]:
    """An array's name, shape and numbers, flat; no numbers for arrays that are empty or not real and numeric."""
    elements = list(_elements(matrix))
    if len(elements) < 3:
        raise ValueError("an array lacks its flags, sizes or name")
    (_, flags), (_, sizes), (_, name) = elements[:3]
    shape = struct.unpack(f"<{len(sizes) // 4}i", sizes)
    kind, content = elements[3] if len(elements) > 3 else (0, memoryview(b""))
    is_numeric = kind in STORAGE and len(content) and not struct.unpack("<I", flags[:4])[0] & COMPLEX
    numbers = np.frombuffer(content, STORAGE[kind]) if is_numeric else np.empty(0)
    return bytes(name).decode("latin-1"), shape, numbers


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of each element; short ones sit inside their tag, others are padded to eight bytes."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, at)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, content[at + 4 : at + 4 + size]
            at += 8
        else:
            yield kind, content[at + 8 : at + 8 + size]
            at += 8 + size + -size % 8
