from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hosnn.data.parquet import ParquetFiles, read_split
from hosnn.data.specification import Specification
from hosnn.data.split import Split
from hosnn.errors import DataError

from .formats import TEST, TINY, TRAIN, encoded, parquet_table, random_split, write_parquet, write_parquet_files


def read(*paths: Path, specification: Specification = TINY, size: int = 12) -> Split:
    return read_split(paths, specification, size)[0]


def same(first: Split, second: Split) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", "index"))


@pytest.mark.parametrize("with_index", [False, True])
def test_what_is_written_is_read(tmp_path: Path, with_index: bool) -> None:
    assert same(read(write_parquet(tmp_path / "train.parquet", TRAIN, with_index=with_index)), TRAIN)


def test_colour_pictures_are_read_channels_first(tmp_path: Path) -> None:
    colour = random_split(3, shape=(3, 4, 5))
    specification = replace(TINY, image_shape=(3, 4, 5))
    path = write_parquet(tmp_path / "colour.parquet", colour)
    assert same(read(path, specification=specification, size=3), colour)


def test_a_split_in_several_files_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hosnn.data.parquet.BATCH_ROWS", 2)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", TRAIN.subset(torch.arange(5, 12)), with_index=False)
    write_parquet(tmp_path / "train-00000-of-00002.parquet", TRAIN.take(5), with_index=False)
    write_parquet(tmp_path / "test.parquet", TEST)
    files = ParquetFiles.find(tmp_path)
    assert files is not None
    contents = files.read(TINY)
    assert same(contents.train, TRAIN)
    assert same(contents.test, TEST)
    assert contents.lossy == 0


def test_a_file_cut_anywhere_raises(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", TRAIN)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train\.parquet"):
            read(path)


def test_damage_raises_or_leaves_the_content_as_it_was(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", TRAIN)
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 9):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            assert same(read(path), TRAIN)  # e.g. a byte of metadata that nobody reads
        except DataError:
            refused += 1
    assert refused > len(whole) // 9 // 3


def with_column(name: str, values: pa.Array) -> pa.Table:
    table = parquet_table(TRAIN)
    return table.set_column(table.schema.get_field_index(name), name, values)


def with_pictures(pictures: list[bytes | None]) -> pa.Table:
    return with_column("image", pa.array([{"bytes": picture, "path": "x.png"} for picture in pictures]))


PICTURES = [encoded(image) for image in TRAIN.images]
BAD_TABLES = {
    "no label": (parquet_table(TRAIN).drop_columns(["label"]), "expected image: struct<bytes, path>, label: integer"),
    "no image": (parquet_table(TRAIN).drop_columns(["image"]), "has columns label: int64"),
    "label in words": (with_column("label", pa.array(["shirt"] * 12)), "label: string"),
    "pixels not encoded": (with_column("image", pa.array([[0] * 20] * 12)), "has columns image: list"),
    "label absent": (with_column("label", pa.array([None, *[1] * 11], pa.int64())), "1 rows have no label"),
    "label too large": (with_column("label", pa.array([0] * 11 + [2])), "label 2 in row 11"),
    "repeated index": (with_column("index", pa.array([3] * 12, pa.int32())), "repeated positions"),
    "picture absent": (with_pictures([*PICTURES[:4], None, *PICTURES[5:]]), "row 4: the image has no bytes"),
    "picture cut off": (with_pictures([*PICTURES[:4], PICTURES[4][:-25], *PICTURES[5:]]), "row 4: .* does not decode"),
    "not a picture": (with_pictures([b"hello", *PICTURES[1:]]), "row 0: the picture does not decode"),
    "format not allowed": (with_pictures([encoded(TRAIN.images[0], "GIF"), *PICTURES[1:]]), "row 0: .* not decode"),
    "wrong size": (
        with_pictures([encoded(torch.zeros(1, 5, 4, dtype=torch.uint8)), *PICTURES[1:]]),
        "row 0: the picture is 4x5, expected 5x4",
    ),
    "wrong mode": (
        with_pictures([encoded(torch.zeros(3, 4, 5, dtype=torch.uint8)), *PICTURES[1:]]),
        "row 0: the picture is in RGB, expected 1 channels",
    ),
    "too few rows": (parquet_table(TRAIN.take(11)), "11 rows, expected 12"),
    "too many rows": (parquet_table(random_split(13)), "more rows than the 12 expected"),
}


@pytest.mark.parametrize(("table", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_raises_by_name(tmp_path: Path, table: pa.Table, message: str) -> None:
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=rf"train\.parquet.*{message}"):
        read(tmp_path / "train.parquet")


def test_an_absent_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path / "absent.parquet")


def test_train_without_test_raises(tmp_path: Path) -> None:
    assert ParquetFiles.find(tmp_path) is None
    (write_parquet_files(tmp_path) / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks test\*\.parquet"):
        ParquetFiles.find(tmp_path)
