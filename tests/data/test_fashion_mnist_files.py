from pathlib import Path

import pytest
import torch

from hosnn.data import Dataset, describe_sources, fashion_mnist, fashion_mnist_sample, load_dataset
from hosnn.data.catalogue import NAMES
from hosnn.data.fashion_mnist_files import FASHION_MNIST, SAMPLE, SAMPLE_FOLDER
from hosnn.data.sources import load_files
from hosnn.data.split import check_split
from hosnn.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return fashion_mnist_sample()


@pytest.fixture(scope="module")
def full() -> Dataset:
    debian = FASHION_MNIST.sources()[0]
    assert debian.name == "Debian package dataset-fashion-mnist"
    try:
        files = debian.find()
    except DataError as absent:
        pytest.skip(f"dataset-fashion-mnist: {absent}")
    return load_files(FASHION_MNIST.specification, files, debian.name)


def per_class(labels: torch.Tensor) -> set[int]:
    return set(torch.bincount(labels, minlength=10).tolist())


def assert_well_formed(dataset: Dataset, sizes: tuple[int, int, int]) -> None:
    splits = (dataset.train, dataset.validation, dataset.test)
    assert tuple(map(len, splits)) == sizes
    for split, size in zip(splits, sizes, strict=True):
        check_split(split, (1, 28, 28), 10, dataset.name)
        assert per_class(split.labels) == {size // 10}
    assert not set(dataset.train.index.tolist()) & set(dataset.validation.index.tolist())


def test_the_sample_is_balanced_and_verified(sample: Dataset) -> None:
    assert_well_formed(sample, (5400, 600, 1000))
    assert (sample.sha256, sample.num_classes, sample.image_shape) == (SAMPLE.sha256, 10, (1, 28, 28))
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.iterdir()) < 4_000_000
    assert "MIT" in (SAMPLE_FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_the_full_set_is_balanced_and_verified(full: Dataset) -> None:
    assert_well_formed(full, (55_000, 5_000, 10_000))
    assert full.sha256 == FASHION_MNIST.specification.sha256


def test_the_sample_is_part_of_the_full_set_split_by_split(sample: Dataset, full: Dataset) -> None:
    for name in ("train", "validation", "test"):
        part, whole = getattr(sample, name), getattr(full, name)
        rows = torch.searchsorted(whole.index, part.index)
        assert torch.equal(whole.index[rows], part.index)
        assert torch.equal(whole.images[rows], part.images)
        assert torch.equal(whole.labels[rows], part.labels)


def test_the_validation_split_never_moves(sample: Dataset) -> None:
    assert sample.validation.index[:5].tolist() == [196, 295, 472, 558, 663]


def test_load_dataset_by_name(sample: Dataset, tmp_path: Path) -> None:
    assert load_dataset("fashion-mnist-sample").sha256 == sample.sha256
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("fashion-mnist", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="embedded and reads no folder"):
        load_dataset("fashion-mnist-sample", tmp_path)


def test_the_sample_is_not_taken_for_the_full_set() -> None:
    with pytest.raises(DataError, match="6000 rows, expected 60000"):
        fashion_mnist(SAMPLE_FOLDER)


@pytest.mark.parametrize(
    ("name", "meant"), [("fashion_mnist", "fashion-mnist"), ("fashion-sample", "fashion-mnist-sample"), ("", "")]
)
def test_an_unknown_name_brings_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no data set '{name}'; did you mean '{meant}"):
        load_dataset(name)


def test_describe_sources_covers_every_data_set() -> None:
    statuses = describe_sources()
    assert {status.dataset for status in statuses} == set(NAMES)
    assert [status.found for status in statuses if status.dataset == SAMPLE.name] == [True]
