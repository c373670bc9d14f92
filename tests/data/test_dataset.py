from dataclasses import replace

import pytest
import torch

from hosnn.data import Dataset, Split
from hosnn.data.split import content_sha256
from hosnn.errors import ConfigError, DataError

from .formats import CLASSES, SHAPE, TEST, TRAIN, random_split


def build(train: Split = TRAIN, test: Split = TEST, *, validation_size: int = 4, **options: object) -> Dataset:
    return Dataset.from_splits("tiny", CLASSES, train, test, validation_size=validation_size, **options)  # type: ignore[arg-type]


def test_validation_and_train_part_the_original_and_validation_is_balanced() -> None:
    dataset = build()
    together = torch.cat((dataset.train.index, dataset.validation.index))
    assert together.sort().values.tolist() == list(range(12))
    assert torch.bincount(dataset.validation.labels).tolist() == [2, 2]
    for split in (dataset.train, dataset.validation):
        assert torch.equal(split.images, TRAIN.images[split.index])
        assert torch.equal(split.labels, TRAIN.labels[split.index])
    assert (dataset.num_classes, dataset.image_shape) == (2, SHAPE)


def test_the_order_of_rows_changes_nothing() -> None:
    straight, reversed_rows = build(), build(train=TRAIN.subset(torch.arange(11, -1, -1)))
    assert straight.sha256 == reversed_rows.sha256
    assert torch.equal(straight.validation.index, reversed_rows.validation.index)
    assert torch.equal(straight.train.images, reversed_rows.train.images)


@pytest.mark.parametrize("change", ["pixel", "label", "split"])
def test_any_change_of_content_changes_the_hash(change: str) -> None:
    images, labels = TRAIN.images.clone(), TRAIN.labels.clone()
    if change == "pixel":
        images[3, 0, 2, 1] ^= 1
    if change == "label":
        labels[0] = 1
    changed = (TEST, TRAIN) if change == "split" else (Split.in_order(images, labels), TEST)
    assert content_sha256(*changed) != content_sha256(TRAIN, TEST)


def test_the_expected_hash_is_accepted_and_another_raises() -> None:
    assert build(sha256=content_sha256(TRAIN, TEST)).sha256 == content_sha256(TRAIN, TEST)
    with pytest.raises(DataError, match=r"tiny \(a file\).*has sha256 .* where 0{64} was expected"):
        build(sha256="0" * 64, source="a file")


BAD_SPLITS = {
    "doubles": (replace(TRAIN, images=TRAIN.images.double()), "torch.float64, expected torch.uint8"),
    "floats in 0..255": (
        replace(TRAIN, images=TRAIN.images.float()),
        r"torch.float32 in \[\d+, 25\d\], expected \[0, 1\]",
    ),
    "floats with NaN": (replace(TRAIN, images=TRAIN.images / 0 * 0), r"in \[nan, nan\], expected \[0, 1\]"),
    "label too large": (replace(TRAIN, labels=TRAIN.labels + 1), r"label 2 in row 1 \(and 5 more\), expected 0..1"),
    "negative label": (replace(TRAIN, labels=TRAIN.labels - 1), "label -1 in row 0"),
    "labels of another type": (replace(TRAIN, labels=TRAIN.labels.int()), r"labels are torch.int32 \[12\]"),
    "labels missing": (replace(TRAIN, labels=TRAIN.labels[:5]), r"labels are torch.int64 \[5\]"),
    "repeated index": (replace(TRAIN, index=TRAIN.index * 0), "repeated positions"),
    "no channels": (replace(TRAIN, images=TRAIN.images[:, 0]), r"\[12, 4, 5\] \[N, C, H, W\], expected \[C, H, W\]"),
    "empty": (TRAIN.take(0), "no images"),
}


@pytest.mark.parametrize(("split", "message"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_a_bad_split_raises_by_name(split: Split, message: str) -> None:
    with pytest.raises(DataError, match=rf"tiny, train split \(here\): .*{message}"):
        build(train=split, source="here")


def test_splits_of_another_size_raise() -> None:
    with pytest.raises(DataError, match=r"test split .*\[6, 1, 5, 5\].*expected \[1, 4, 5\]"):
        build(test=random_split(6, shape=(1, 5, 5)))
    with pytest.raises(DataError, match="train split"):
        build(image_shape=(3, 4, 5))


@pytest.mark.parametrize("validation_size", [3, -2])
def test_validation_that_classes_cannot_share_is_a_config_error(validation_size: int) -> None:
    with pytest.raises(ConfigError, match="expected a multiple of 2"):
        build(validation_size=validation_size)


def test_validation_may_not_use_up_a_class() -> None:
    with pytest.raises(DataError, match="smallest class has 6"):
        build(validation_size=12)
    assert len(build(validation_size=0).validation) == 0


def test_a_class_without_training_images_is_another_data_set() -> None:
    with pytest.raises(DataError, match="some of the 2 classes have no training images; is this another data set"):
        build(train=replace(TRAIN, labels=TRAIN.labels * 0))


def test_batch_is_exactly_pixels_over_255() -> None:
    rows = torch.tensor([5, 0, 5])
    x, y = TRAIN.batch(rows)
    assert x.dtype == torch.float32
    assert torch.equal(x, TRAIN.images[rows].float() / 255)
    assert torch.equal(y, TRAIN.labels[rows])
    every_value = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x, _ = Split.in_order(every_value, torch.zeros(1, dtype=torch.int64)).batch(torch.tensor([0]))
    assert torch.equal((x * 255).round().byte(), every_value)


def test_take_and_subset_keep_rows_together() -> None:
    assert TRAIN.take(3).index.tolist() == [0, 1, 2]
    assert TRAIN.subset(torch.tensor([7, 2])).index.tolist() == [7, 2]
    chosen = TRAIN.subset(4)
    assert torch.bincount(chosen.labels).tolist() == [2, 2]
    assert torch.equal(chosen.images, TRAIN.images[chosen.index])
    for count in (-1, 13):
        with pytest.raises(ConfigError, match=f"a request for {count} rows of a split that has 12"):
            TRAIN.take(count)
        with pytest.raises(ConfigError, match="split that has 12"):
            TRAIN.subset(count)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TRAIN.labels = TRAIN.labels  # type: ignore[misc]


def test_for_selection_the_validation_images_take_the_place_of_the_test_images() -> None:
    dataset = build()
    selecting = dataset.for_selection()
    assert selecting.test is dataset.validation and selecting.train is dataset.train
    assert (selecting.name, selecting.sha256) == (dataset.name, dataset.sha256)
    assert selecting.title == f"{dataset.title}, validation images" and "validation" not in dataset.title
    assert replace(dataset, lossy=3).title.endswith(f"3 of {len(dataset)} images lossy")
    assert replace(dataset, lossy=3).for_selection().title.endswith("3 images lossy, validation images")
