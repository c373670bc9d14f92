"""Restoring the original order of a training split whose parts are stored in another."""

import hashlib
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hosnn.data.split import Split
from hosnn.errors import DataError


def in_original_order(train: Split, label_parts: tuple[str, ...], origin: str) -> Split:
    """The split with its parts in the order of `label_parts`, so that `index` means the same from every source.

    The Hub's copy of CIFAR-10, for example, has the batches in the order of the archive: 4, 3, 2, 5, 1.  Parts are
    recognised by their labels.  A split with an index of its own is returned unchanged, as is any for no label_parts.

    label_parts  `dataset.Specification.label_parts`
    origin       names the source in the message
    Raises DataError if the labels are not those of the parts, each once.
    """
    if not label_parts or not torch.equal(train.index, torch.arange(len(train))):
        return train
    ends = np.linspace(0, len(train), len(label_parts) + 1).astype(int).tolist()
    parts = [torch.arange(start, end) for start, end in pairwise(ends)]
    hashes = [_fingerprint(train.labels[rows]) for rows in parts]
    if sorted(hashes) != sorted(label_parts):
        raise DataError(
            f"{origin}: the training labels are neither in the original order nor in that order by batches, so "
            "rows cannot be numbered; add a column `index` with each image's original position, or get the original "
            "files"
        )
    if tuple(hashes) == label_parts:
        return train
    rows = torch.cat([parts[hashes.index(part)] for part in label_parts])
    return Split.in_order(train.images[rows], train.labels[rows])


def has_published_labels(train: Split, label_parts: tuple[str, ...]) -> bool:
    """Whether the labels, in order of `index`, are those of `label_parts`; True if there are none to compare with."""
    labels = train.labels[train.index.argsort()]
    parts = labels.tensor_split(len(label_parts)) if label_parts else ()
    return all(_fingerprint(part) == known for part, known in zip(parts, label_parts, strict=True))


def _fingerprint(labels: Tensor) -> str:
    return hashlib.sha256(labels.to(torch.uint8).numpy().data).hexdigest()
