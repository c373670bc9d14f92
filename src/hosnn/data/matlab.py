"""A reader of MATLAB 5 files (.mat) for data sets: real numeric arrays, compressed or not, little-endian.

SciPy would be a large dependency for one data set.  Sizes are bounded before anything is unpacked, so that a damaged or
hostile file cannot fill the memory.
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
    """The arrays named in `shapes`, read-only, in the types they are stored in.

    shapes  the shape that each must have, by name; other arrays in the file are skipped
    Raises DataError for another format, a cut-off or damaged file, an absent array or one of another shape.
    """
    longest = LONGEST_NUMBER * max(math.prod(shape) for shape in shapes.values()) + SLACK
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:
            _check_header(file.read(HEADER_BYTES), path)
            for element in _matrices(file, longest, path.stat().st_size):
                name, shape, numbers = _parse_matrix(element)
                if name not in shapes:
                    continue
                if shape != shapes[name]:
                    raise DataError(
                        f"{path} has {name} of shape {list(shape)}, expected {list(shapes[name])}; is this another "
                        "data set?"
                    )
                if numbers.size != math.prod(shape):
                    raise ValueError(f"{name} has {numbers.size} numbers for shape {list(shape)}")
                arrays[name] = numbers.reshape(shape, order="F")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a MATLAB 5 file ({error}); get it again") from error
    missing = [name for name in shapes if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}; is this another data set, or was it cut off?")
    return arrays


def _check_header(header: bytes, path: Path) -> None:
    if header.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path} is a MATLAB 7.3 file (HDF5), expected MATLAB 5; save it with -v7, or get the original")
    if len(header) < HEADER_BYTES or header[124:] != b"\x00\x01IM":
        raise DataError(
            f"{path} starts with {header[:16]!r}, expected the header of a little-endian MATLAB 5 file; get it again"
        )


def _matrices(file: IO[bytes], longest: int, file_size: int) -> Iterator[memoryview]:
    """The content of each array in the file, cut off after `longest` bytes, which no expected array exceeds."""
    while tag := file.read(8):
        kind, size = struct.unpack("<II", tag)
        end = file.tell() + size
        if end > file_size:  # before memory for what it claims is asked for
            raise ValueError("it ends within an array")
        if kind == COMPRESSED:
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(file.read(size), longest)
            if not inflater.eof and len(inflated) < longest:
                raise ValueError("it ends within a compressed array")
            if struct.unpack("<II", inflated[:8])[0] == MATRIX:
                yield memoryview(inflated)[8:]
        elif kind == MATRIX:
            content = file.read(min(size, longest))
            yield memoryview(content)
        file.seek(end)


def _parse_matrix(matrix: memoryview) -> tuple[str, tuple[int, ...], NDArray[Any]]:
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
    """Type and bytes of each element; short ones are stored in their tag, others are padded to eight bytes."""
    start = 0
    while start + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, start)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, content[start + 4 : start + 4 + size]
            start += 8
        else:
            yield kind, content[start + 8 : start + 8 + size]
            start += 8 + size + -size % 8
