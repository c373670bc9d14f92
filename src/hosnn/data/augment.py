"""Augmentation of whole batches on their device: crop, flip, cutout, and compositions.

An augmentation is a frozen value called with (images, rng).  Its effect on an image depends on the seed, the epoch and
the image's position in its data set only, never on the batch or the number of ranks; and since pixels are moved, never
mixed, every device gives the same bits.
Legend: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.errors import ConfigError, ShapeError
from hosnn.identity import identified
from hosnn.rng import SampleRandom

Augmentation = Callable[[Tensor, SampleRandom], Tensor]
"""(images [B, C, H, W], uint8 in 0..255 or floating point in [0, 1]; one stream per image) -> the same shape, dtype."""


def augment(images: Tensor, index: Tensor, augmentation: Augmentation, *, seed: int, epoch: int) -> Tensor:
    """The images augmented for this epoch.

    images   [B, C, H, W] uint8 in 0..255 or floating point in [0, 1], on any device
    index    [B] int64, each image's position in the original split (`dataset.Split.index`)
    returns  the same shape, dtype and device; an image's result is the same in every batch and on every rank
    Raises ShapeError for other images or another index.
    """
    if images.dim() != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ShapeError(
            f"augment got images {images.dtype} {list(images.shape)}, expected uint8 in 0..255 or floating point in "
            "[0, 1], [B, C, H, W]; convert them first"
        )
    if index.shape != images.shape[:1] or index.dtype != torch.int64:
        raise ShapeError(
            f"augment got index {index.dtype} {list(index.shape)} for {len(images)} images, expected one int64 each; "
            "pass Split.index of the same rows"
        )
    return augmentation(images, SampleRandom(seed, index).fold("augment", epoch))


@identified("InTurn")
@dataclass(frozen=True)
class InTurn:
    """Several augmentations, one after the other, each with its own random stream."""

    augmentations: tuple[Augmentation, ...]

    def __call__(self, images: Tensor, rng: SampleRandom) -> Tensor:
        for position, augmentation in enumerate(self.augmentations):
            images = augmentation(images, rng.fold("in turn", position))
        return images


@identified("RandomCrop")
@dataclass(frozen=True)
class RandomCrop:
    """A window of the image's own size at a random position in the image with a black margin added.

    margin  pixels on each side; 4 is usual for 32x32
    """

    margin: int = 4

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ConfigError(f"RandomCrop got margin {self.margin}, expected 0 or more pixels, e.g. 4")

    def __call__(self, images: Tensor, rng: SampleRandom) -> Tensor:
        batch, channels, height, width = images.shape
        corner = random_integers(rng, images, 2, 2 * self.margin + 1)  # [B, 2], row and column
        rows = corner[:, :1] + torch.arange(height, device=images.device)
        columns = corner[:, 1:] + torch.arange(width, device=images.device)
        padded = functional.pad(images, (self.margin,) * 4)
        image, channel = (torch.arange(count, device=images.device) for count in (batch, channels))
        return padded[
            image[:, None, None, None], channel[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]


@identified("RandomFlip")
@dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability 1/2."""

    def __call__(self, images: Tensor, rng: SampleRandom) -> Tensor:
        chosen = random_integers(rng, images, 1, 2).bool()  # [B, 1]
        return torch.where(chosen[:, :, None, None], images.flip(3), images)


@identified("Cutout")
@dataclass(frozen=True)
class Cutout:
    """A grey square at a random position, clipped at the image's edge.

    size  the square's side in pixels; the paper uses 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN
    grey  its colour, 0 black to 1 white.  The paper fills with the data's mean, which lies near the middle
    Source: DeVries & Taylor 2017, arXiv:1708.04552; as there, the centre is any pixel of the image.
    """

    size: int = 16
    grey: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"Cutout got size {self.size}, expected 1 or more pixels, e.g. 16")
        if not 0 <= self.grey <= 1:
            raise ConfigError(f"Cutout got grey {self.grey}, expected 0 (black) to 1 (white)")

    def __call__(self, images: Tensor, rng: SampleRandom) -> Tensor:
        height, width = images.shape[2:]
        rows = self._covered(random_integers(rng.fold("row"), images, 1, height), height)
        columns = self._covered(random_integers(rng.fold("column"), images, 1, width), width)
        colour = round(255 * self.grey) if images.dtype == torch.uint8 else self.grey
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], colour)

    def _covered(self, centre: Tensor, length: int) -> Tensor:
        """Which of `length` rows or columns the square covers, [B, length] bool; centre [B, 1]."""
        distance = torch.arange(length, device=centre.device) - (centre - self.size // 2)
        return (distance >= 0) & (distance < self.size)


def random_integers(rng: SampleRandom, images: Tensor, count: int, below: int) -> Tensor:
    """`count` uniform integers in 0..below-1 for each image, [B, count] int64 on the images' device."""
    # Float32 whatever the images' dtype, so that half precision draws the same; 24 bits stay below 1 when scaled.
    uniform = rng.uniform(torch.empty(len(images), count, dtype=torch.float32, device=images.device))
    return (uniform * below).long().clamp_(max=below - 1)
