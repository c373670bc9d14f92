"""The same images have one identity in any container, and lossy or altered ones are told apart."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hosnn.data import Dataset, catalogue, load_dataset
from hosnn.data.cifar import CIFAR10, CIFAR100, published_pixels
from hosnn.data.cifar_files import (
    CIFAR10_BINARY,
    CIFAR10_PYTHON,
    CIFAR100_BINARY,
    CIFAR100_PYTHON,
    CifarVersion,
)
from hosnn.data.specification import Verified
from hosnn.data.split import Split
from hosnn.errors import DataError

from .colour_formats import TEST, TINY_COLOUR, TRAIN, batches, binary_batch, write_archive, write_cifar
from .formats import encoded

COARSE = bytes([7, 7])  # what the writers of tests give
VERSIONS = {
    "cifar10": (CIFAR10, CIFAR10_PYTHON, CIFAR10_BINARY, b""),
    "cifar100": (CIFAR100, CIFAR100_PYTHON, CIFAR100_BINARY, COARSE),
}
SETS = pytest.mark.parametrize("name", VERSIONS)


def fingerprint(labels: torch.Tensor) -> str:
    return sha256(bytes(labels.tolist())).hexdigest()


@pytest.fixture(autouse=True)
def tiny_sets_with_published_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny colour set stands for both sets, with hashes published for its binary batches, as theirs have."""
    for name, (publication, _, binary, coarse) in VERSIONS.items():
        parts = [*batches(TRAIN, len(binary.train)), TEST]
        hashes = {
            batch: sha256(binary_batch(part, hundred=bool(coarse))).hexdigest()
            for batch, part in zip((*binary.train, *binary.test), parts, strict=True)
        }
        specification = replace(
            TINY_COLOUR,
            name=name,
            sha256=None,
            verify=partial(published_pixels, hashes, coarse),
            label_parts=() if coarse else tuple(fingerprint(part.labels) for part in parts[:-1]),
            label_names=publication.specification.label_names,
        )
        monkeypatch.setitem(catalogue.IMAGES, name, replace(publication, specification=specification))


def webp(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def write_table(path: Path, split: Split, encode: Callable[[torch.Tensor], bytes] = encoded, **columns: Any) -> None:
    pictures = [{"bytes": encode(image), "path": None} for image in split.images]
    labels = {"label": pa.array(split.labels.tolist(), pa.int64())}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pictures, **labels, **columns}), path)


def parquet(encode: Callable[[torch.Tensor], bytes], shards: int = 1) -> Callable[[Path, str], object]:
    def write(folder: Path, name: str) -> None:
        for number, part in enumerate(batches(TRAIN, shards)):
            write_table(folder / f"train-{number}.parquet", part, encode)
        write_table(folder / "test.parquet", TEST, encode)

    return write


def files_of(version: int) -> Callable[[Path, str], object]:
    return lambda folder, name: write_cifar(folder, VERSIONS[name][version])  # type: ignore[arg-type]


def archive_of(version: int) -> Callable[[Path, str], object]:
    return lambda folder, name: write_archive(folder, VERSIONS[name][version])  # type: ignore[arg-type]


CONTAINERS: dict[str, Callable[[Path, str], object]] = {
    "pickles": files_of(1),
    "binary": files_of(2),
    "archive of pickles": archive_of(1),
    "archive of binary": archive_of(2),
    "Parquet of PNG": parquet(encoded),
    "Parquet of lossless WebP": parquet(webp),
    "Parquet in 20 shards": parquet(webp, shards=20),  # train-10 comes after train-2
}


@SETS
def test_one_identity_in_every_container(name: str, tmp_path: Path) -> None:
    loaded = {}
    for number, (container, write) in enumerate(CONTAINERS.items()):
        write(tmp_path / str(number), name)
        loaded[container] = load_dataset(name, tmp_path / str(number))
    first = loaded["pickles"]
    for container, data in loaded.items():
        assert (data.sha256, data.title) == (TINY_COLOUR.sha256, name), container
        assert (data.verified, data.lossy) == (Verified.PIXELS, 0), container
        for part in ("train", "validation", "test"):
            mine, other = getattr(first, part), getattr(data, part)
            assert torch.equal(mine.index, other.index), container
            for one, another in zip(mine.batch(torch.arange(4)), other.batch(torch.arange(4)), strict=True):
                assert torch.equal(one, another), container


@SETS
@pytest.mark.parametrize("container", ["Parquet of PNG", "arrays"])
def test_a_path_to_a_published_set_is_recognised_by_its_pixels(
    name: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "IMAGES", {name: catalogue.IMAGES[name]})

    def given(train: Split) -> Dataset:
        if container == "arrays":
            arrays = {"x_train": train.images, "y_train": train.labels, "x_test": TEST.images, "y_test": TEST.labels}
            torch.save(arrays, tmp_path / "data.pt")
            return load_dataset(str(tmp_path / "data.pt"))
        write_table(tmp_path / "train.parquet", train)
        write_table(tmp_path / "test.parquet", TEST)
        return load_dataset(str(tmp_path))

    data = given(TRAIN)
    assert (data.name, data.title, data.sha256) == (name, name, TINY_COLOUR.sha256)
    assert data.verified is Verified.PIXELS
    other = given(altered(TRAIN, 13))
    assert (other.name.startswith("own:"), other.verified) == (True, Verified.NOTHING)


def write_with_pictures(folder: Path, kinds: dict[int, str], split: Split = TRAIN) -> Dataset:
    """CIFAR-10 with some training pictures in another encoding."""
    pictures = [encoded(image, kinds.get(row, "PNG")) for row, image in enumerate(split.images)]
    folder.mkdir(parents=True)
    columns = {
        "image": [{"bytes": picture, "path": None} for picture in pictures],
        "label": pa.array(split.labels.tolist(), pa.int64()),
    }
    pq.write_table(pa.table(columns), folder / "train.parquet")
    write_table(folder / "test.parquet", TEST)
    return load_dataset("cifar10", folder)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_pictures_are_counted_in_the_title_and_only_labels_are_vouched_for(tmp_path: Path, kind: str) -> None:
    data = write_with_pictures(tmp_path / "data", {3: kind, 17: kind})
    assert (data.name, data.title) == ("cifar10", "cifar10, 2 of 28 images lossy")
    assert (data.lossy, data.verified) == (2, Verified.LABELS)
    assert data.sha256 != TINY_COLOUR.sha256
    exact = write_with_pictures(tmp_path / "exact", {})
    assert torch.equal(data.validation.index, exact.validation.index)


def test_labels_of_lossy_pictures_are_checked(tmp_path: Path) -> None:
    labels = TRAIN.labels.clone()
    labels[0] = 1 - labels[0]
    with pytest.raises(DataError, match=r"cifar10 .*labels"):
        write_with_pictures(tmp_path / "data", {3: "JPEG"}, replace(TRAIN, labels=labels))
    with pytest.raises(DataError, match="training labels are not the published ones"):
        shuffled = replace(TRAIN, labels=labels)
        write_numbered(tmp_path / "numbered", shuffled)
        load_dataset("cifar10", tmp_path / "numbered")


def write_numbered(folder: Path, split: Split) -> None:
    """Rows with an index of their own, backwards, and one of them lossy."""
    backwards = split.subset(torch.arange(len(split) - 1, -1, -1))
    first = iter(["JPEG"])
    write_table(
        folder / "train.parquet",
        backwards,
        lambda image: encoded(image, next(first, "PNG")),
        index=pa.array(backwards.index.tolist(), pa.int32()),
    )
    write_table(folder / "test.parquet", TEST)


def altered(split: Split, row: int) -> Split:
    images = split.images.clone()
    images[row, 1, 5, 5] ^= 1
    return replace(split, images=images)


def swapped(split: Split) -> Split:
    """Two images of one class change places: the labels stay as they were."""
    order = torch.arange(len(split))
    first, second = (split.labels == 0).nonzero().flatten()[:2].tolist()
    order[first], order[second] = second, first
    return replace(split, images=split.images[order])


WRONG: dict[str, tuple[Split, Split]] = {
    "a bit of a training image": (altered(TRAIN, 13), TEST),
    "a bit of a test image": (TRAIN, altered(TEST, 2)),
    "two images of one class swapped": (swapped(TRAIN), TEST),
    "a test label": (TRAIN, replace(TEST, labels=TEST.labels.flip(0))),
}


@SETS
@pytest.mark.parametrize(("train", "test"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("container", ["pickles", "Parquet"])
def test_exact_images_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, name: str, train: Split, test: Split, container: str
) -> None:
    if container == "pickles":
        write_cifar(tmp_path, VERSIONS[name][1], train, test)
    else:
        write_table(tmp_path / "train.parquet", train)
        write_table(tmp_path / "test.parquet", test)
    with pytest.raises(DataError, match=rf"{name} .*their content is not the published one"):
        load_dataset(name, tmp_path)


def test_fine_labels_go_before_coarse_ones_in_cifar_100(tmp_path: Path) -> None:
    """Some copies call the coarse label `label`."""
    fine = {"fine_label": pa.array(TRAIN.labels.tolist(), pa.int64())}
    fine_test = {"fine_label": pa.array(TEST.labels.tolist(), pa.int64())}
    write_table(tmp_path / "train.parquet", replace(TRAIN, labels=TRAIN.labels * 0), **fine)
    write_table(tmp_path / "test.parquet", replace(TEST, labels=TEST.labels * 0), **fine_test)
    assert load_dataset("cifar100", tmp_path).verified is Verified.PIXELS


def test_an_index_of_its_own_decides_the_order(tmp_path: Path) -> None:
    write_numbered(tmp_path, TRAIN)
    data = load_dataset("cifar10", tmp_path)
    assert data.lossy == 1
    assert torch.equal(data.train.labels, TRAIN.labels[data.train.index])


def test_an_archive_may_hold_its_batches_in_any_order(tmp_path: Path) -> None:
    version: CifarVersion = CIFAR10_PYTHON
    folder = write_archive(tmp_path, version)
    with tarfile.open(folder / version.archive) as archive:
        names = [member.name for member in archive if member.isfile()]
    assert names != sorted(names)
    assert load_dataset("cifar10", folder).verified is Verified.PIXELS
