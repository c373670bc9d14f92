"""Data sets as frozen values: decoded images in memory, a fixed validation split, and a hash of the content.

Legend: N rows, C channels, H height, W width.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from hosnn.data.selection import balanced_rows, shuffled_rank_in_class
from hosnn.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and labels, in memory.

    images  [N, C, H, W] uint8, 0..255
    labels  [N] int64
    index   [N] int64, each row's position in the original split, by which result files name samples
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    @classmethod
    def in_order(cls, images: Tensor, labels: Tensor) -> Self:
        """A split in the original order: index is 0..N-1."""
        return cls(images, labels, torch.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {list(self.images.shape[1:])})"

    def subset(self, rows: Tensor | int) -> Self:
        """Some of the rows.

        rows  [n] int64 row numbers, kept in that order; or a number n: a fixed choice of n rows, even over the classes
              (`selection.balanced_rows`), in which the choice for n = 100 is part of that for n = 200
        Raises ConfigError if n is negative or more than there are.
        """
        if isinstance(rows, int):
            rows = balanced_rows(self.labels, self.index, self._at_most(rows)).to(self.labels.device)
        return type(self)(self.images[rows], self.labels[rows], self.index[rows])

    def take(self, count: int) -> Self:
        """The first `count` rows.  Raises ConfigError if there are fewer."""
        rows = slice(self._at_most(count))
        return type(self)(self.images[rows], self.labels[rows], self.index[rows])

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Input for a model: x = uint8 / 255 as float32 in [0, 1], [n, C, H, W], and labels [n] int64.

        rows  [n] int64 row numbers (not `index`)
        """
        rows = rows.to(self.labels.device)
        return self.images[rows].to(torch.float32).div_(255), self.labels[rows]

    def blocks(self, size: int) -> list[Tensor]:
        """All row numbers in order, in blocks of at most `size`; evaluations divide their work at these blocks only."""
        return [torch.arange(at, min(at + size, len(self))) for at in range(0, len(self), size)]

    def to(self, device: torch.device | str) -> Self:
        """The same split on `device`; a split already there is not copied."""
        return type(self)(self.images.to(device), self.labels.to(device), self.index.to(device))

    def _at_most(self, count: int) -> int:
        if not 0 <= count <= len(self):
            raise ConfigError(
                f"got a request for {count} rows of a split that has {len(self)}; ask for 0 to {len(self)}"
            )
        return count


@dataclass(frozen=True)
class Specification:
    """The properties that a data set must have, whichever source it comes from.

    image_shape  [C, H, W]
    train_size   including the validation split
    sha256       the expected `content_sha256`; None if it is unknown, because no complete copy was at hand
    published    MD5 or SHA-256 by file name, which a file of that name must have (`hashes.verify_published_hash`).  If
                 `sha256` is known, IDX files need it only when downloaded: packages compress them again
    label_parts  SHA-256 of the labels (one byte each) of equal parts of train, in the original order; a source may
                 have the parts in another order (`ordering.in_original_order`).  Empty: the order is not checked
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_size: int
    test_size: int
    validation_size: int
    sha256: str | None
    published: Mapping[str, str] = field(default_factory=dict, hash=False)
    label_parts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set, its training images already split into train and validation.

    source  where it was read from, as text
    sha256  `content_sha256` of the original train and test splits: the same whatever format they were read from
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str
    sha256: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W]"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @classmethod
    def from_splits(
        cls,
        name: str,
        classes: tuple[str, ...],
        train: Split,
        test: Split,
        *,
        validation_size: int,
        source: str = "tensors in memory",
        image_shape: tuple[int, int, int] | None = None,
        sha256: str | None = None,
    ) -> Self:
        """A data set from two decoded splits, after checks, with a fixed validation split taken from train.

        The validation split has the same number of rows from each class: those of lowest
        `selection.shuffled_rank_in_class`.  All splits are in the order of `index`.

        image_shape  [C, H, W]; None: train's
        sha256       the expected `content_sha256`; None accepts any
        Raises DataError for images or labels that are not as expected, ConfigError for a validation_size that is not
        a multiple of the number of classes.
        """
        shape = tuple(train.images.shape[1:]) if image_shape is None else image_shape
        check_split(train, shape, len(classes), f"{name}, train split ({source})")
        check_split(test, shape, len(classes), f"{name}, test split ({source})")
        train, test = _in_order_of_index(train), _in_order_of_index(test)
        actual_sha256 = content_sha256(train, test)
        if sha256 not in (None, actual_sha256):
            raise DataError(
                f"{name} ({source}): the files decode, but their content has sha256 {actual_sha256} where {sha256} was "
                "expected; they are another version or were altered: get them again, or take another source"
            )
        held_out = _validation_mask(train, len(classes), validation_size, f"{name} ({source})")
        return cls(
            name=name,
            classes=classes,
            train=train.subset((~held_out).nonzero().squeeze(1)),
            validation=train.subset(held_out.nonzero().squeeze(1)),
            test=test,
            source=source,
            sha256=actual_sha256,
        )


def content_sha256(train: Split, test: Split) -> str:
    """SHA-256 over, for train then test: the text "NxCxHxW\\n", pixels in C order, labels and index as little-endian
    int64.  It depends on the decoded content only, never on the file format."""
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(("x".join(map(str, split.images.shape)) + "\n").encode())
        digest.update(split.images.cpu().contiguous().numpy().data)
        for column in (split.labels, split.index):
            digest.update(column.cpu().numpy().astype("<i8").data)
    return digest.hexdigest()


def check_split(split: Split, image_shape: tuple[int, ...], num_classes: int, origin: str) -> None:
    """Raise DataError unless `split` is uint8 images of `image_shape` [C, H, W] with labels in 0..num_classes-1.

    origin  names the file or source in the message
    """
    images, labels, index = split.images, split.labels, split.index
    if images.dtype != torch.uint8:
        raise DataError(f"{origin}: images are {images.dtype}, expected torch.uint8 (0..255); convert them first")
    if len(image_shape) != 3 or tuple(images.shape[1:]) != tuple(image_shape):
        expected = list(image_shape) if len(image_shape) == 3 else "[C, H, W]"
        raise DataError(
            f"{origin}: images are {list(images.shape)} [N, C, H, W], expected {expected} after N; "
            "is this another data set?"
        )
    for name, column in (("labels", labels), ("index", index)):
        if column.dtype != torch.int64 or column.shape != images.shape[:1]:
            raise DataError(
                f"{origin}: {name} are {column.dtype} {list(column.shape)}, expected torch.int64 [{len(images)}], "
                "one per image; do images and labels come from the same split?"
            )
    if len(images) == 0:
        raise DataError(f"{origin}: there are no images; get the files again")
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        raise DataError(
            f"{origin}: label {labels[wrong[0]].item()} in row {wrong[0].item()} (and {len(wrong) - 1} more), "
            f"expected 0..{num_classes - 1} for {num_classes} classes; is this another data set?"
        )
    if int(index.min()) < 0 or bool((index.sort().values.diff() == 0).any()):
        raise DataError(
            f"{origin}: index has negative or repeated positions, expected one original position per image; "
            "write the index column again, or leave it out"
        )


def _in_order_of_index(split: Split) -> Split:
    return split if bool((split.index.diff() > 0).all()) else split.subset(split.index.argsort())


def _validation_mask(train: Split, num_classes: int, validation_size: int, origin: str) -> Tensor:
    per_class, remainder = divmod(validation_size, num_classes)
    if validation_size < 0 or remainder:
        raise ConfigError(
            f"{origin}: validation_size is {validation_size}, expected a multiple of {num_classes} (the same number "
            f"from each class); take {per_class * num_classes} or {(per_class + 1) * num_classes}"
        )
    smallest = int(torch.bincount(train.labels, minlength=num_classes).min())
    if smallest <= per_class:
        raise DataError(
            f"{origin}: the smallest class has {smallest} training images, expected more than the {per_class} that "
            f"validation takes from each; choose validation_size below {smallest * num_classes}"
        )
    return (shuffled_rank_in_class(train.labels, train.index) < per_class).to(train.labels.device)
