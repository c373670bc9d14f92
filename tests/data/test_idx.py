import gzip
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hosnn.data.idx import IdxFiles, read_idx
from hosnn.data.split import Split
from hosnn.errors import DataError

from .formats import TEST, TINY, TRAIN, idx_bytes, write_idx_files

ARRAY = TRAIN.images.squeeze(1)
CONTENT = idx_bytes(ARRAY)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), gzipped=st.booleans())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], gzipped: bool) -> None:
    array = torch.randint(256, sizes, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(idx_bytes(array)) if gzipped else idx_bytes(array))
    assert torch.equal(read_idx(path, (None,) * len(sizes)), array)
    assert torch.equal(read_idx(path, tuple(sizes)), array)


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_file_cut_anywhere_raises(tmp_path: Path, gzipped: bool) -> None:
    path, whole = tmp_path / "cut.gz", gzip.compress(CONTENT) if gzipped else CONTENT
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.gz"):
            read_idx(path, (12, 4, 5))


def test_damage_inside_a_gzip_file_raises_or_changes_nothing(tmp_path: Path) -> None:
    path, whole, refused = tmp_path / "damaged", gzip.compress(CONTENT), 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            assert torch.equal(read_idx(path, (12, 4, 5)), ARRAY)  # e.g. the time in the gzip header
        except DataError:
            refused += 1
    assert refused > 0.9 * len(whole)


BAD_FILES = {
    "trailing byte": (CONTENT + b"\0", "holds more bytes after its header, expected 240"),
    "trailing byte, gzipped": (gzip.compress(CONTENT + b"\0"), "holds more bytes"),
    "wrong magic": (b"\0\0\x08\x01" + CONTENT[4:], "starts with 00000801, expected the magic number 00000803"),
    "floats": (b"\0\0\x0d\x03" + CONTENT[4:], "starts with 00000d03"),
    "web page": (b"<html>not found</html>", "starts with 3c68746d"),
    "empty": (b"", "starts with nothing"),
    "another size": (idx_bytes(ARRAY[:, :, :3]), r"header for \[12, 4, 3\], expected \[12, 4, 5\]"),
    "another count": (idx_bytes(ARRAY[:7]), r"header for \[7, 4, 5\]"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_raises_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"images .*{message}"):
        read_idx(path, (12, 4, 5))


def test_a_header_that_claims_terabytes_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3 + b"\0" * 100)
    with pytest.raises(DataError, match="only 100 bytes"):
        read_idx(path, (None, None, None))


def test_an_absent_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "absent", (None,))


@pytest.mark.parametrize("gzipped", [False, True])
def test_four_files_are_found_and_read(tmp_path: Path, gzipped: bool) -> None:
    files = IdxFiles.find(write_idx_files(tmp_path, gzipped=gzipped))
    assert files is not None
    contents = files.read(TINY)
    for read, written in ((contents.train, TRAIN), (contents.test, TEST)):
        for column in ("images", "labels", "index"):
            assert torch.equal(getattr(read, column), getattr(written, column))


def test_three_of_four_files_raise(tmp_path: Path) -> None:
    assert IdxFiles.find(tmp_path) is None
    (write_idx_files(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        IdxFiles.find(tmp_path)


def test_a_label_out_of_range_names_its_file(tmp_path: Path) -> None:
    files = IdxFiles.find(write_idx_files(tmp_path, test=Split.in_order(TEST.images, TEST.labels + 7)))
    assert files is not None
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: label 7 in row 0"):
        files.read(TINY)
