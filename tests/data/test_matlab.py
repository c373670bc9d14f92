import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from hosnn.data.matlab import read_mat
from hosnn.errors import DataError

from .colour_formats import mat_array, mat_bytes

SHAPES = {"X": (2, 3), "y": (3, 1)}
X = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
PIXELS = mat_array("X", (2, 3), 2, X.tobytes("F"))
LABELS = mat_array("y", (3, 1), 2, bytes((1, 10, 3)), flags=6)  # doubles, stored as bytes


def read(tmp_path: Path, content: bytes):
    (tmp_path / "x.mat").write_bytes(content)
    return read_mat(tmp_path / "x.mat", SHAPES)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_written_is_read(tmp_path: Path, compressed: bool):
    other = mat_array("a_long_name_of_another_array", (1, 2), 9, struct.pack("<2d", 0.5, 1.5), flags=6)
    text, empty = mat_array("t", (1, 4), 16, b"text", flags=4), mat_array("e", (0, 0), 9, b"", flags=6)
    found = read(tmp_path, mat_bytes(other, PIXELS, text, LABELS, empty, compressed=compressed))
    assert sorted(found) == ["X", "y"]
    assert np.array_equal(found["X"], X)
    assert found["X"].dtype == np.uint8
    assert found["y"].tolist() == [[1], [10], [3]]


@pytest.mark.parametrize(("kind", "letter"), [(1, "b"), (3, "h"), (5, "i"), (7, "f"), (9, "d"), (12, "q"), (13, "Q")])
def test_numbers_are_read_as_they_are_stored(tmp_path: Path, kind: int, letter: str):
    labels = mat_array("y", (3, 1), kind, struct.pack(f"<3{letter}", 1, 10, 3), flags=6)
    assert read(tmp_path, mat_bytes(PIXELS, labels))["y"].ravel().tolist() == [1, 10, 3]


# Written by SciPy 1.17.1: savemat(file, {"X": X, "y": y}, do_compression=True), y in float64.
BY_SCIPY = """
TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IE1vbiBOb3YgMjMgMDI6NDQ6MzUgMjAyNgAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAdwAAAHic42NgYGgAYjYg5gBi
TgYIYAViASBmAmJmKGYBYkYgjICKewBxfMWPetn48347CrftV6xc6Wr9vKlq76YPnq9lXlSr11+PtJ0VyHjISOCt0wF+h7M+1ndu
rqptuqd984Jrg/Cuxcv8ZrMsbHrJ9UOnGwDReyXaDwAAADMAAAB4nONjYGAIAGI2IOaA0iDACuWzADEjGDMyVAJpTiBWYICBD/YQ
WsUBQnNAaSUHAG0BA2Y=
"""


def test_a_file_of_another_writer_is_read(tmp_path: Path):
    (tmp_path / "x.mat").write_bytes(base64.b64decode(BY_SCIPY))
    found = read_mat(tmp_path / "x.mat", {"X": (2, 3, 3, 4), "y": (4, 1)})
    assert np.array_equal(found["X"], np.random.default_rng(0).integers(0, 256, (2, 3, 3, 4), dtype=np.uint8))
    assert found["y"].ravel().tolist() == [1, 10, 3, 9]


WHOLE = mat_bytes(PIXELS, LABELS)
BAD = {
    "empty": (b"", "starts with b''"),
    "not a MATLAB file": (b"<html>please log in</html>".ljust(200), "starts with b'<html>"),
    "MATLAB 7.3": (b"MATLAB 7.3 MAT-file".ljust(600), r"MATLAB 7\.3 file \(HDF5\), expected MATLAB 5"),
    "big-endian": (WHOLE[:124] + b"\x01\x00MI" + WHOLE[128:], "little-endian"),
    "nothing in it": (WHOLE[:128], "has no array X, y"),
    "an array missing": (mat_bytes(PIXELS), "has no array y"),
    "another shape": (
        mat_bytes(mat_array("X", (3, 2), 2, X.tobytes()), LABELS),
        r"X of shape \[3, 2\], expected \[2, 3\]",
    ),
    "too few numbers": (mat_bytes(mat_array("X", (2, 3), 2, b"12345"), LABELS), "X has 5 numbers for shape"),
    "half a number": (mat_bytes(mat_array("X", (2, 3), 3, b"12345"), LABELS), "cannot be read as a MATLAB 5 file"),
    "complex numbers": (
        mat_bytes(mat_array("X", (2, 3), 2, X.tobytes(), flags=0x809), LABELS),
        "X has 0 numbers for shape",
    ),
    "text": (mat_bytes(mat_array("X", (2, 3), 16, b"sixsix", flags=4), LABELS), "X has 0 numbers"),
    "no name": (WHOLE[:128] + struct.pack("<II", 14, 16) + bytes(16), "lacks its flags, sizes or name"),
    "damaged": (WHOLE[:140] + bytes([WHOLE[140] ^ 255]) + WHOLE[141:], "cannot be read as a MATLAB 5 file"),
    "wrong checksum": (mat_bytes(PIXELS)[:-1] + b"\0" + mat_bytes(LABELS)[128:], "incorrect data check"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_raises_by_name(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(DataError, match=rf"x\.mat.*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_raises(tmp_path: Path, compressed: bool):
    whole = mat_bytes(PIXELS, LABELS, compressed=compressed)
    for length in range(len(whole)):
        with pytest.raises(DataError, match=r"x\.mat"):
            read(tmp_path, whole[:length])


def test_a_file_that_unpacks_to_much_more_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = []

    class Watched:
        def __init__(self) -> None:
            self.inside = original()

        @property
        def eof(self) -> bool:
            return bool(self.inside.eof)

        def decompress(self, content: bytes, longest: int) -> bytes:
            given.append(len(inflated := self.inside.decompress(content, longest)))
            return inflated

    original = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    bomb = mat_array("X", (2, 3), 2, bytes(50_000_000))
    with pytest.raises(DataError, match="X has"):
        read(tmp_path, mat_bytes(bomb, LABELS))
    assert max(given) < 10_000


def test_an_absent_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent\.mat cannot be read"):
        read_mat(tmp_path / "absent.mat", SHAPES)
