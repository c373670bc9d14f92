"""What a reader of a user's own data gives, and the data set made of it.

Legend: N rows, T time, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.data.dataset import Dataset
from hosnn.data.selection import shuffled_rank_in_class
from hosnn.data.split import Split, check_split
from hosnn.errors import DataError

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
"""Of each class: what of one pile becomes the test split, and of the training images the validation split."""

MOST_CLASSES = 100_000
"""Larger labels are no class numbers."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Images and labels by part: "train", "test" and perhaps "validation", or "all" for one pile.

    images   [N, C, H, W], or frames [N, T, C, H, W]; uint8, or float32 in [0, 1]
    labels   [N] int64
    classes  names by number; empty: named by their numbers
    lossy    pictures that came in a lossy encoding, of all parts together
    origin   the file or folder, for messages
    """

    images: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()
    lossy: int = 0
    origin: str


def dataset_of(parts: Parts, name: str, source: str) -> Dataset:
    """The data set, its parts fixed by the position of each image: one pile gives a fifth of each class to the test
    split, training images a tenth to the validation split if there is none.

    Raises DataError for classes too small to part, or labels that are no class numbers.
    """
    highest = max(int(labels.max()) for labels in parts.labels.values() if len(labels))
    if highest >= MOST_CLASSES:
        raise DataError(
            f"{parts.origin}: labels go up to {highest}, expected fewer than {MOST_CLASSES} classes, numbered from 0"
        )
    names = parts.classes or tuple(map(str, range(highest + 1)))
    splits = {part: Split.in_order(parts.images[part], parts.labels[part]) for part in parts.images}
    for part, split in splits.items():
        where = parts.origin if part == "all" else f"{parts.origin}, {part} split"
        check_split(split, tuple(split.images.shape[1:]), len(names), where)
    if len(names) < 2:
        raise DataError(f"{parts.origin}: all labels are {highest}; expected images of at least 2 classes")
    if "all" in splits:
        splits["test"], splits["train"] = _part(splits.pop("all"), TEST_SHARE, "test", parts.origin, names)
    for missing in {"train", "test"} - splits.keys():
        raise DataError(f"{parts.origin} has no {missing} images; add them, or give one pile that is parted here")
    known = set(splits["train"].labels.tolist())
    for part, split in splits.items():
        unknown = sorted(set(split.labels.tolist()) - known)
        if unknown:
            raise DataError(
                f"{parts.origin}: the {part} split has images of class {names[unknown[0]]!r}, of which the train split "
                "has none; expected every class there"
            )
    validation = splits.get("validation")
    if validation is None:
        validation, splits["train"] = _part(splits["train"], VALIDATION_SHARE, "validation", parts.origin, names)
    return Dataset.from_own(
        name=name,
        classes=names,
        train=splits["train"],
        validation=validation,
        test=splits["test"],
        source=source,
        lossy=parts.lossy,
    )


def _part(split: Split, share: float, what: str, origin: str, names: Sequence[str]) -> tuple[Split, Split]:
    """`share` of each class, at least one image, and the rest; which ones depends on their position alone."""
    sizes = torch.bincount(split.labels)
    wanted = (sizes * share).round().long().clamp(min=1)
    small = [label for label, size in enumerate(sizes.tolist()) if 0 < size < 2]
    if small:
        raise DataError(
            f"{origin}: only 1 image of class {names[small[0]]!r} for the splits, too few to give one to the {what} "
            "split; expected at least 3 images a class"
        )
    chosen = shuffled_rank_in_class(split.labels, split.index) < wanted[split.labels]
    return split.subset(chosen.nonzero().squeeze(1)), split.subset((~chosen).nonzero().squeeze(1))
