"""Images and labels in memory, and the hash that says which they are."""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from hosnn.data.selection import balanced_rows, is_sorted_by_class, rows_by_rank
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

    def for_evaluation(self, count: int | None = None) -> Self:
        """The rows that an evaluation takes, in its order: all, or `subset(count)` if there are more.

        Where they are sorted by class they are mixed (`selection.rows_by_rank`), since short searches and checks of the
        model look at the first of them.
        Raises ConfigError if `count` is negative.
        """
        chosen = self if count is None or count >= len(self) else self.subset(count)
        if not is_sorted_by_class(chosen.labels):
            return chosen
        return chosen.subset(rows_by_rank(chosen.labels, chosen.index).to(chosen.labels.device))

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
