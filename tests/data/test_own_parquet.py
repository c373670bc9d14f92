"""Parquet files of one's own: any number of files, sizes and classes."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hosnn.data import Dataset, load_dataset
from hosnn.data.own_parquet import read_own_parquet
from hosnn.data.parquet import class_names
from hosnn.data.split import Split
from hosnn.errors import DataError

from .formats import encoded, random_split

PILE = random_split(24, 1, (3, 4, 5))
TEST = random_split(6, 2, (3, 4, 5))


def table(split: Split, image: str = "image", label: str = "label", kind: str = "PNG") -> pa.Table:
    return pa.table(
        {
            image: [{"bytes": encoded(picture, kind), "path": None} for picture in split.images],
            label: pa.array(split.labels.tolist(), pa.int64()),
        }
    )


def with_class_names(table: pa.Table, names: list[str], label: str = "label") -> pa.Table:
    features = {label: {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def sizes(data: Dataset) -> tuple[int, ...]:
    return tuple(map(len, (data.train, data.validation, data.test)))


def rows(split: Split, start: int, stop: int) -> Split:
    return split.subset(torch.arange(start, stop))


def test_one_file_is_one_pile(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "pets.parquet", table(PILE))))
    assert (data.name, data.title, sizes(data)) == ("own:pets", "pets (unverified)", (18, 2, 4))
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.images, PILE.images[split.index])
        assert torch.equal(split.labels, PILE.labels[split.index])


@pytest.mark.parametrize(("image", "label"), [("img", "fine_label"), ("image", "fine_label"), ("img", "label")])
def test_the_usual_column_names_are_known(tmp_path: Path, image: str, label: str) -> None:
    plain = load_dataset(str(write(tmp_path / "a.parquet", table(PILE))))
    named = load_dataset(str(write(tmp_path / "b.parquet", table(PILE, image, label))))
    assert plain.sha256 == named.sha256


def test_shards_come_in_natural_order(tmp_path: Path) -> None:
    whole = load_dataset(str(write(tmp_path / "whole" / "data.parquet", table(PILE))))
    for number in range(12):
        write(tmp_path / "shards" / f"part-{number}.parquet", table(rows(PILE, 2 * number, 2 * number + 2)))
    sharded = load_dataset(str(tmp_path / "shards"))
    assert sharded.sha256 == whole.sha256
    assert (sharded.name, sharded.source) == ("own:shards", str(tmp_path / "shards"))


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_files_are_parted_by_the_beginning_of_their_names(tmp_path: Path, validation: str | None) -> None:
    for number in (0, 1, 10, 2):
        place = {0: 0, 1: 1, 2: 2, 10: 3}[number]
        write(tmp_path / f"train-{number}.parquet", table(rows(PILE, 6 * place, 6 * place + 6)))
    write(tmp_path / "test-00000-of-00001.parquet", table(TEST))
    if validation:
        write(tmp_path / f"{validation}.parquet", table(TEST))
    data = load_dataset(str(tmp_path))
    assert sizes(data) == ((24, 6, 6) if validation else (22, 2, 6))
    assert torch.equal(data.train.images, PILE.images[data.train.index])
    assert torch.equal(data.test.images, TEST.images)


def test_class_names_are_taken_from_the_hubs_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.parquet", with_class_names(table(PILE), ["cat", "dog", "cow"]))
    assert load_dataset(str(path)).classes == ("cat", "dog", "cow")
    path = write(tmp_path / "fine.parquet", with_class_names(table(PILE, label="fine_label"), ["a", "b"], "fine_label"))
    assert load_dataset(str(path)).classes == ("a", "b")


@pytest.mark.parametrize("features", ["[" * 100_000, "5", "[]", '{"label": 5}', '{"label": {"names": 5}}', "\xff"])
def test_damaged_names_of_classes_are_none(features: str, tmp_path: Path) -> None:
    metadata = f'{{"info": {{"features": {features}}}}}'.encode("latin-1")
    path = write(tmp_path / "pets.parquet", table(PILE).replace_schema_metadata({b"huggingface": metadata}))
    assert class_names(path) == ()


def test_damaged_names_of_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.parquet", table(PILE))
    path.write_bytes(path.read_bytes().replace(b"image", b"im\xe1ge"))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_own_parquet([path])


def test_the_first_file_of_the_training_part_names_the_classes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", with_class_names(table(PILE), ["cat", "dog"]))
    write(tmp_path / "test.parquet", table(TEST))
    assert load_dataset(str(tmp_path)).classes == ("cat", "dog")


def test_lossy_pictures_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table(PILE))
    write(tmp_path / "test.parquet", table(TEST, kind="JPEG"))
    assert load_dataset(str(tmp_path)).title == f"{tmp_path.name} (unverified), 6 of 30 images lossy"


def moving() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def with_picture(content: bytes) -> pa.Table:
    pictures = [encoded(picture) for picture in PILE.images]
    pictures[7] = content
    return table(PILE).set_column(0, "image", pa.array([{"bytes": picture, "path": None} for picture in pictures]))


def labelled(labels: list[int]) -> pa.Table:
    return table(PILE).set_column(1, "label", pa.array(labels, pa.int64()))


def cut(path: Path) -> None:
    write(path, table(PILE)).write_bytes(path.read_bytes()[:-100])


BAD: dict[str, tuple[pa.Table | Callable[[Path], None], str]] = {
    "no pictures": (pa.table({"label": [0, 1]}), "has columns label: int64; expected image: struct"),
    "labels in words": (
        table(PILE).set_column(1, "label", pa.array(["cat"] * 24)),
        "label: string; expected .*label: integer",
    ),
    "a picture of another size": (
        with_picture(encoded(torch.zeros(3, 5, 4, dtype=torch.uint8))),
        "row 7: the picture is 4x5, expected 5x4",
    ),
    "a grey picture": (with_picture(encoded(torch.zeros(1, 4, 5, dtype=torch.uint8))), "row 7: the picture is grey"),
    "a moving picture": (with_picture(moving()), r"row 7: the picture moves \(2 frames\)"),
    "no picture": (with_picture(b"please log in"), "row 7: the picture does not decode"),
    "labels unknown": (labelled([-1] * 24), "label -1 in row 0"),
    "a label unknown": (labelled([0, 1] * 11 + [0, -1]), "label -1 in row 23"),
    "more labels than names": (
        with_class_names(labelled([0, 1, 2] * 8), ["cat", "dog"]),
        "expected 0..1 for 2 classes",
    ),
    "no rows": (table(PILE).slice(0, 0), "has no rows"),
    "cut off": (cut, "cannot be read as Parquet"),
    "not Parquet": (lambda path: path.write_text("please log in"), "cannot be read as Parquet"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_file_that_is_no_data_set_is_refused_by_name(
    tmp_path: Path, content: pa.Table | Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "pets.parquet"
    if isinstance(content, pa.Table):
        write(path, content)
    else:
        content(path)
    with pytest.raises(DataError, match=rf"pets\.parquet.*{message}"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    "names",
    [("train-0", "test-0", "extra"), ("train", "validation"), ("train", "test", "dev-0")],
    ids="-".join,
)
def test_a_folder_of_which_some_files_name_their_part_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    """The third file would have replaced the user's train and test images."""
    for name in names:
        write(tmp_path / f"{name}.parquet", table(PILE))
    with pytest.raises(DataError, match="nothing else"):
        load_dataset(str(tmp_path))


def test_parts_are_told_in_any_case(tmp_path: Path) -> None:
    write(tmp_path / "Train.parquet", table(PILE))
    write(tmp_path / "TEST-0.parquet", table(TEST))
    assert sizes(load_dataset(str(tmp_path)))[2] == 6
