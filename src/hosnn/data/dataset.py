"""Data sets as frozen values: decoded images in memory, a fixed validation split, and a hash of the content.

Legend: N rows, T time, C channels, H height, W width.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from hosnn.data.selection import shuffled_rank_in_class
from hosnn.data.specification import Verified
from hosnn.data.split import Split, check_split, content_sha256
from hosnn.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, its training images already parted into train and validation.

    name      by which it is loaded; "own:..." for a user's own
    source    where it came from, for people
    sha256    `content_sha256` of the original train and test splits: the same whatever format they were read from
    lossy     images that were decoded from a lossy encoding, so that their pixels are not the original ones
    verified  what a published hash vouches for
    selecting  whether `test` holds the validation images, to choose between networks without a look at the test images
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
    selecting: bool = False

    def for_selection(self) -> Self:
        """The same data set with its validation images in the place of the test images; its title says so."""
        return replace(self, test=self.validation, selecting=True)

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
            of_all = "" if self.selecting else f" of {len(self):,}"  # the test images are no longer here to be counted
            parts.append(f"{self.lossy:,}{of_all} images lossy")
        if self.selecting:
            parts.append("validation images")
        return ", ".join(parts)

    @property
    def origin(self) -> str:
        """What a checkpoint notes of `source`: without the folder, which nobody needs to know when weights are shared,
        unless the data are the user's own and are found again by it."""
        return self.source if self.name.startswith("own:") else self.source.partition(" in ")[0]

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
    if smallest == 0:
        raise DataError(
            f"{origin}: some of the {num_classes} classes have no training images; is this another data set?"
        )
    if smallest <= per_class:
        raise DataError(
            f"{origin}: the smallest class has {smallest} training images, expected more than the {per_class} that "
            f"validation takes from each; choose validation_size below {smallest * num_classes}"
        )
    return (shuffled_rank_in_class(train.labels, train.index) < per_class).to(train.labels.device)
