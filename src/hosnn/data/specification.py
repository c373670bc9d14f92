"""What a data set must be, and what of it a published hash vouches for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from hosnn.data.split import Split


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
