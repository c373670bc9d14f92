"""TrivialAugment (Wide): one of fourteen operations per image at one of 31 strengths, both uniform.

Computed in integers throughout (pixels 0..255, positions in 1/65536 pixel), so that every device and every batch gives
the same bits; floating-point images are converted to 8 bits and back.  Operations are those of Pillow, as in the
authors' code: nearest-neighbour sampling, black outside the image.
Source: Müller & Hutter 2021, arXiv:2103.10158, table of the Wide space.
Legend: B batch, C channels, H height, W width.  Images inside are [B, C, H, W] int32 in 0..255.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hosnn.data.augment import random_integers
from hosnn.errors import ShapeError
from hosnn.identity import identified
from hosnn.rng import SampleRandom

STRENGTHS = 31  # 0 (nothing, or nearly) to 30
UNIT = 1 << 16  # parts of a pixel
Matrix = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the pixel at (x, y) comes from (a x + b y + c, d x + e y + f), as in Pillow."""


@identified("TrivialAugment")
@dataclass(frozen=True)
class TrivialAugment:
    """One of OPERATIONS per image, at a strength and with a sign drawn for it."""

    def __call__(self, images: Tensor, rng: SampleRandom) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise ShapeError(f"TrivialAugment got images {list(images.shape)}, expected 1 (grey) or 3 (RGB) channels")
        is_bytes = images.dtype == torch.uint8
        pixels = images.int() if is_bytes else (images.float() * 255).round().clamp(0, 255).int()
        chosen, strength, sign = (
            random_integers(rng.fold(name), images, 1, below).squeeze(1)
            for name, below in (("operation", len(OPERATIONS)), ("strength", STRENGTHS), ("sign", 2))
        )
        strength = strength * (2 * sign - 1)
        result = pixels.clone()
        for number, operation in enumerate(OPERATIONS.values()):
            rows = (chosen == number).nonzero().squeeze(1)
            if len(rows):
                result[rows] = operation(pixels[rows], strength[rows])
        return result.to(torch.uint8) if is_bytes else result.to(images.dtype).div_(255)


def _moved(matrix: Callable[[int, int, int], Matrix]) -> Callable[[Tensor, Tensor], Tensor]:
    """The operation that moves pixels by `matrix(strength, height, width)`."""

    def move(pixels: Tensor, strength: Tensor) -> Tensor:
        batch, channels, height, width = pixels.shape
        # The matrices of all strengths: sines are computed by Python, everything after that in integers.
        table = torch.tensor(
            [
                [math.floor(entry * UNIT + 0.5) for entry in matrix(level, height, width)]
                for level in range(-STRENGTHS + 1, STRENGTHS)
            ]
        )
        a, b, c, d, e, f = table.to(pixels.device)[strength + STRENGTHS - 1].view(batch, 6, 1, 1).unbind(1)
        x, y = torch.arange(width, device=pixels.device), torch.arange(height, device=pixels.device)[:, None]
        # From the middle of a pixel: twice the position in parts of a pixel, then back down to whole pixels.
        column = (a * (2 * x + 1) + b * (2 * y + 1) + 2 * c) >> 17  # [B, H, W]
        row = (d * (2 * x + 1) + e * (2 * y + 1) + 2 * f) >> 17
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(batch, 1, -1)
        moved = pixels.flatten(2).gather(2, source.expand(-1, channels, -1)).view_as(pixels)
        return moved * inside[:, None]

    return move


def _shear_x(strength: int, height: int, width: int) -> Matrix:
    return (1, 0.033 * strength, 0, 0, 1, 0)  # to 0.99


def _shear_y(strength: int, height: int, width: int) -> Matrix:
    return (1, 0, 0, 0.033 * strength, 1, 0)


def _shift_x(strength: int, height: int, width: int) -> Matrix:
    return (1, 0, 32 * strength / 30, 0, 1, 0)  # to 32 pixels


def _shift_y(strength: int, height: int, width: int) -> Matrix:
    return (1, 0, 0, 0, 1, 32 * strength / 30)


def _rotation(strength: int, height: int, width: int) -> Matrix:
    angle = math.radians(4.5 * strength)  # to 135 degrees, around the middle
    cosine, sine, x, y = math.cos(angle), math.sin(angle), width / 2, height / 2
    return (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)


def _blended(away_from: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The operation that goes from 0.01 to 1.99 of the way from `away_from(pixels)` to the image."""

    def blend(pixels: Tensor, strength: Tensor) -> Tensor:
        start = away_from(pixels)
        thousandths = (1000 + 33 * strength).int()[:, None, None, None]
        return ((1000 * start + thousandths * (pixels - start)).clamp(min=0) // 1000).clamp(max=255)

    return blend


def _grey(pixels: Tensor) -> Tensor:
    """[B, 1, H, W]: ITU-R 601 luma, in the integer weights that Pillow uses."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _mean_grey(pixels: Tensor) -> Tensor:
    """[B, 1, 1, 1]: the mean of `_grey`, rounded."""
    grey = _grey(pixels)
    count = grey[0].numel()
    total = grey.sum((1, 2, 3), keepdim=True)
    return ((2 * total + count) // (2 * count)).int()


def _smoothed(pixels: Tensor) -> Tensor:
    """Each pixel with weight 5 among its eight neighbours, the edge as it is."""
    height, width = pixels.shape[2:]
    padded = functional.pad(pixels, (1, 1, 1, 1))
    total = 4 * pixels
    for down in range(3):
        for right in range(3):
            total = total + padded[:, :, down : down + height, right : right + width]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26)[:, :, 1:-1, 1:-1]
    return smooth


def _same(pixels: Tensor, strength: Tensor) -> Tensor:
    return pixels


def _posterized(pixels: Tensor, strength: Tensor) -> Tensor:
    dropped = ((2 * strength.abs() + 5) // 10).int()[:, None, None, None]  # 0 to 6 of 8 bits
    return (pixels >> dropped) << dropped


def _solarized(pixels: Tensor, strength: Tensor) -> Tensor:
    """Inverts pixels from a threshold upwards: 255 at strength 0, 0 at strength 30."""
    threshold = (510 - 17 * strength.abs()).int()[:, None, None, None]
    return torch.where(2 * pixels < threshold, pixels, 255 - pixels)


def _autocontrasted(pixels: Tensor, strength: Tensor) -> Tensor:
    """Each channel from its darkest to its brightest value stretched to 0..255."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) * 255 // (high - low).clamp(min=1), pixels)


def _equalized(pixels: Tensor, strength: Tensor) -> Tensor:
    """Each channel's values spread so that all are about equally frequent."""
    flat = pixels.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    step = (flat.shape[2] - counts.gather(2, flat.amax(2, keepdim=True))) // 255
    before = counts.cumsum(2) - counts
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, flat), flat).view_as(pixels).int()


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _same,
    "shear x": _moved(_shear_x),
    "shear y": _moved(_shear_y),
    "shift x": _moved(_shift_x),
    "shift y": _moved(_shift_y),
    "rotate": _moved(_rotation),
    "brightness": _blended(torch.zeros_like),
    "colour": _blended(_grey),
    "contrast": _blended(_mean_grey),
    "sharpness": _blended(_smoothed),
    "posterize": _posterized,
    "solarize": _solarized,
    "autocontrast": _autocontrasted,
    "equalize": _equalized,
}
"""(pixels [B, C, H, W], strength [B] int64 in -30..30) -> pixels.  The first and the last four ignore the sign."""
