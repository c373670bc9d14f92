"""Data sets as frozen values: decoded images in memory, a fixed validation split, and a hash of the content.

Legend: N rows, T time, C channels, H height, W width.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Self

import torch
from torch import Tensor

from hosnn.data.selection import balanced_rows, shuffled_rank_in_class
from hosnn.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and labels, in memory.

    images   [N, C, H, W], or frames [N, T, C, H, W]: uint8, 0..divisor, or float32 in [0, 1]
    labels   [N] int64
    index    [N] int64, each row's position in the original split: it names a sample in every result file
    divisor  what whole numbers are divided by to lie in [0, 1]; of frames of events, the largest count of a pixel
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    divisor: int = 255

    @classmethod
    def in_order(cls, images: Tensor, labels: Tensor) -> Self:
        """A split in the original order: index is 0..N-1."""
        return cls(images, labels, torch.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {list(self.images.shape[1:])})"

    def _chosen(self, rows: Tensor | slice) -> Self:
        return replace(self, images=self.images[rows], labels=self.labels[rows], index=self.index[rows])

    def subset(self, rows: Tensor | int) -> Self:
        """Some of the rows.

        rows  [n] int64 row numbers, kept in that order; or a number n: a fixed choice of n rows, even over the classes
              (`selection.balanced_rows`), in which the choice for n = 100 is part of that for n = 200
        Raises ConfigError if n is negative or more than there are.
        """
        if isinstance(rows, int):
            rows = balanced_rows(self.labels, self.index, self._at_most(rows)).to(self.labels.device)
        return self._chosen(rows)

    def take(self, count: int) -> Self:
        """The first `count` rows.  Raises ConfigError if there are fewer."""
        return self._chosen(slice(self._at_most(count)))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What a model takes: images as float32 in [0, 1], [n, C, H, W] (uint8 / divisor), and labels [n] int64.

        rows  [n] int64 row numbers (not `index`)
        """
        rows = rows.to(self.labels.device)
        images = self.images[rows]
        if not images.is_floating_point():
            images = images.to(torch.float32).div_(self.divisor)
        return images, self.labels[rows]

    def blocks(self, size: int) -> list[Tensor]:
        """All row numbers in order, in blocks of at most `size`; evaluations divide their work at these blocks only."""
        return [torch.arange(at, min(at + size, len(self))) for at in range(0, len(self), size)]

    def to(self, device: torch.device | str) -> Self:
        """The same split on `device`; a split already there is not copied."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "labels", "index")}
        return replace(self, **moved)

    def _at_most(self, count: int) -> int:
        if not 0 <= count <= len(self):
            raise ConfigError(
                f"got a request for {count} rows of a split that has {len(self)}; ask for 0 to {len(self)}"
            )
        return count


class Verified(Enum):
    """What of a data set's content a published hash vouches for: the pixels, the labels and their order, or nothing."""

    PIXELS = "pixels"
    LABELS = "labels"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The properties that a data set must have, whichever source it comes from.

    image_shape  [C, H, W], or [T, C, H, W] of frames
    train_size   with the validation split still inside
    sha256       what `content_sha256` must give; None if nobody here ever held the whole set to compute it
    verify       (train, test) -> whether their pixels are the published ones, for sets of which only the hashes of
                 original files are known (`cifar.published_pixels`); None: nothing to compare with
    published    MD5 or SHA-256 by file name, for downloads, and for files whose content nothing else vouches for
    label_parts  SHA-256 of the labels (one byte each) of equal parts of train, in the original order; a source may
                 bring the parts in another order (`ordering.in_original_order`).  Empty: the order is not checked
    label_names  columns that hold the labels in Parquet files, the first that is there
    divisor      `Split.divisor`
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    train_size: int
    test_size: int
    validation_size: int
    sha256: str | None
    verify: Callable[["Split", "Split"], bool] | None = None
    published: Mapping[str, str] = field(default_factory=dict, hash=False)
    label_parts: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ("label", "fine_label")
    divisor: int = 255


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, its training images already parted into train and validation.

    name      by which it is loaded; "own:..." for a user's own
    source    where it came from, for people
    sha256    `content_sha256` of the original train and test splits: the same whatever format they were read from
    lossy     images that were decoded from a lossy encoding, so that their pixels are not the original ones
    verified  what a published hash vouches for
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str
    sha256: str
    lossy: int = 0
    verified: Verified = Verified.NOTHING

    def __len__(self) -> int:
        """Images of all splits together."""
        return len(self.train) + len(self.validation) + len(self.test)

    @property
    def title(self) -> str:
        """The name for results: it tells if pixels are not the original ones, or if nothing vouches for them."""
        parts = [self.name.removeprefix("own:")]
        if self.verified is Verified.NOTHING:
            parts[0] += " (unverified)"
        if self.lossy:
            parts.append(f"{self.lossy:,} of {len(self):,} images lossy")
        return ", ".join(parts)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W], of frames too."""
        channels, height, width = self.train.images.shape[-3:]
        return channels, height, width

    @property
    def steps(self) -> int | None:
        """Time steps T of frames; None for images."""
        return self.train.images.shape[1] if self.train.images.dim() == 5 else None

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training images in [0, 1], to 4 digits; 1 for a constant."""
        total = torch.zeros(self.image_shape[0], dtype=torch.float64)
        squares, count = total.clone(), 0
        for rows in self.train.blocks(1000):
            channels = self.train.batch(rows)[0].double().movedim(-3, 0).flatten(1)
            total, squares = total + channels.sum(1), squares + channels.square().sum(1)
            count += channels.shape[1]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        spread = torch.where(deviation < 5e-5, torch.ones_like(deviation), deviation)
        return tuple(round(value, 4) for value in mean.tolist()), tuple(round(value, 4) for value in spread.tolist())

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
        image_shape: tuple[int, ...] | None = None,
        sha256: str | None = None,
        lossy: int = 0,
        verified: Verified = Verified.NOTHING,
    ) -> Self:
        """A data set from two decoded splits, after checks, with a fixed validation split taken from train.

        The validation split has the same number of rows from each class: those of lowest
        `selection.shuffled_rank_in_class`.  All splits are in the order of `index`.

        image_shape      [C, H, W]; None takes train's
        sha256           what `content_sha256` must give; None accepts any
        lossy, verified  see `Dataset`; content of the sha256 asked for is verified to the pixel
        Raises DataError for images or labels that are not what was expected, ConfigError for a validation_size that
        the classes cannot share evenly.
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
            lossy=lossy,
            verified=Verified.PIXELS if sha256 is not None else verified,
        )

    @classmethod
    def from_own(
        cls,
        *,
        name: str,
        classes: tuple[str, ...],
        train: Split,
        validation: Split,
        test: Split,
        source: str,
        lossy: int = 0,
    ) -> Self:
        """A user's own data set, already parted.

        Raises DataError for images or labels that are not what was expected.
        """
        for what, split in (("train", train), ("validation", validation), ("test", test)):
            check_split(split, tuple(train.images.shape[1:]), len(classes), f"{source}, {what} split")
        return cls(
            name=name,
            classes=classes,
            train=train,
            validation=validation,
            test=test,
            source=source,
            sha256=content_sha256(train, validation, test),
            lossy=lossy,
        )


def content_sha256(*splits: Split) -> str:
    """SHA-256 over, for train then test: the text "NxCxHxW\\n", pixels in C order, labels and index as little-endian
    int64.  It depends on the decoded content only, never on the file format."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(("x".join(map(str, split.images.shape)) + "\n").encode())
        digest.update(split.images.cpu().contiguous().numpy().data)
        for column in (split.labels, split.index):
            digest.update(column.cpu().numpy().astype("<i8").data)
    return digest.hexdigest()


def check_split(split: Split, image_shape: tuple[int, ...], num_classes: int, origin: str) -> None:
    """Raise DataError unless `split` is images of `image_shape` with labels in 0..num_classes-1.

    image_shape  [C, H, W], or [T, C, H, W] of frames
    origin       names the file or source in the message
    """
    images, labels, index = split.images, split.labels, split.index
    if images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"{origin}: images are {images.dtype}, expected torch.uint8 (0..255) or torch.float32 in [0, 1]; convert "
            "them first"
        )
    if len(image_shape) not in (3, 4) or tuple(images.shape[1:]) != tuple(image_shape):
        expected = list(image_shape) if len(image_shape) in (3, 4) else "[C, H, W]"
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
    if images.is_floating_point():
        low, high = (float(extreme) for extreme in images.aminmax())
        if not (low >= 0 and high <= 1):  # so that NaN is refused too
            raise DataError(
                f"{origin}: images are {images.dtype} in [{low:g}, {high:g}], expected [0, 1]; rescale them"
            )
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
