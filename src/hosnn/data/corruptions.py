"""Common corruptions: noise, blur, weather-like changes and compression, at five severities.

After Hendrycks & Dietterich 2019 (arXiv 1903.12261), with their strengths for 32 x 32 images and lengths scaled to the
image's shorter side.  Pixels differ from theirs, because only numpy, torch and pillow are used here.
Legend: B images, C channels, H height, W width; pixels in [0, 1].
"""

import io
import math
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hosnn.errors import ConfigError, ShapeError

SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 32  # pixels that the lengths below are given for


class Corruption(Enum):
    """A kind of corruption."""

    GAUSSIAN_NOISE = "gaussian noise"
    SHOT_NOISE = "shot noise"
    IMPULSE_NOISE = "impulse noise"
    GAUSSIAN_BLUR = "gaussian blur"
    MOTION_BLUR = "motion blur"
    FOG = "fog"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    PIXELATE = "pixelate"
    JPEG = "jpeg"


def corrupt(images: Tensor, corruption: Corruption, severity: int, seed: int, index: Tensor) -> Tensor:
    """The images after one corruption.

    images    [B, C, H, W] floating point in [0, 1]
    severity  1 (slight) to 5
    index     [B] int64, each image's position in its data set
    returns   [B, C, H, W] in [0, 1], same dtype and device
    The effect on an image depends on seed, corruption and its index only, never on its batch.  All severities use the
    same random numbers, so that they differ in strength only.
    Raises ShapeError for other images or another index, ConfigError for an unknown severity.
    """
    if images.dim() != 4 or not images.is_floating_point() or 0 in images.shape[1:]:
        raise ShapeError(
            f"corrupt got {images.dtype} images {tuple(images.shape)}; expected floating point [B, C, H, W] in [0, 1]"
        )
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise ShapeError(f"corrupt got pixels from {images.min():g} to {images.max():g}; expected [0, 1]")
    if index.shape != images.shape[:1] or index.dtype != torch.int64:
        raise ShapeError(
            f"corrupt got {index.dtype} index {tuple(index.shape)} for {len(images)} images; expected one int64 each"
        )
    if severity not in SEVERITIES:
        raise ConfigError(f"corrupt got severity {severity!r}; expected one of {SEVERITIES}")
    kind = _KINDS[corruption]
    number = list(Corruption).index(corruption)
    strength = kind.strengths[severity - 1]
    corrupted = [
        kind.apply(image, strength, np.random.default_rng((seed % 2**64, number, at)))
        for image, at in zip(images.detach().cpu().double(), index.tolist(), strict=True)
    ]
    if not corrupted:
        return images.clone()
    return torch.stack(corrupted).clamp_(0, 1).to(images)


def _gaussian_noise(image: Tensor, deviation: float, rng: Generator) -> Tensor:
    return image + deviation * torch.from_numpy(rng.standard_normal(image.shape))


def _shot_noise(image: Tensor, photons: float, rng: Generator) -> Tensor:
    """Light counted in photons, of which a white pixel sends `photons` on average."""
    return torch.from_numpy(rng.poisson(photons * image.numpy()) / photons)


def _impulse_noise(image: Tensor, share: float, rng: Generator) -> Tensor:
    """`share` of all values become black or white, half each."""
    chosen, white = (torch.from_numpy(rng.random(image.shape)) for _ in range(2))
    return torch.where(chosen < share, (white < 0.5).double(), image)


def _gaussian_blur(image: Tensor, deviation: float, rng: Generator) -> Tensor:
    at = torch.arange(-_radius(3 * deviation, image), _radius(3 * deviation, image) + 1, dtype=image.dtype)
    bell = (-0.5 * (at / _pixels(deviation, image)).square()).exp()
    return _filtered(_filtered(image, bell[:, None]), bell[None, :])


def _motion_blur(image: Tensor, deviation: float, rng: Generator) -> Tensor:
    """Blurred to one side along a line at up to 45 degrees from horizontal, with the weights of half a Gaussian."""
    angle = math.radians(rng.uniform(-45, 45))
    radius, width = _radius(3 * deviation, image), _pixels(deviation, image)
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=image.dtype)
    for along in torch.arange(0, radius + 0.25, 0.25).tolist():
        weight = math.exp(-0.5 * (along / width) ** 2)
        row, column = radius + along * math.sin(angle), radius + along * math.cos(angle)
        top, left = min(math.floor(row), 2 * radius - 1), min(math.floor(column), 2 * radius - 1)
        for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            kernel[y, x] += weight * (1 - abs(row - y)) * (1 - abs(column - x))
    return _filtered(image, kernel)


def _fog(image: Tensor, thickness: float, rng: Generator) -> Tensor:
    """Clouds of random heights, each octave half as coarse and half as high, mixed in up to the image's own maximum."""
    height, width = image.shape[1:]
    clouds = torch.zeros(1, 1, height, width, dtype=image.dtype)
    for octave in range(5):
        coarse = torch.from_numpy(rng.random((1, 1, 2**octave + 1, 2**octave + 1)))
        clouds += functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True) / 2**octave
    clouds = (clouds - clouds.min()) / (clouds.max() - clouds.min()).clamp(min=1e-12)
    brightest = image.max()
    return (image + thickness * clouds[0]) * brightest / (brightest + thickness)


def _brightness(image: Tensor, offset: float, rng: Generator) -> Tensor:
    return image + offset


def _contrast(image: Tensor, kept: float, rng: Generator) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return mean + kept * (image - mean)


def _pixelate(image: Tensor, size: float, rng: Generator) -> Tensor:
    """Downscaled to `size` of its sides by box averages, then upscaled without smoothing."""
    height, width = image.shape[1:]
    small = (max(1, int(width * size)), max(1, int(height * size)))
    channels = [Image.fromarray(channel).resize(small, Image.Resampling.BOX) for channel in image.float().numpy()]
    grown = [np.asarray(channel.resize((width, height), Image.Resampling.BOX)) for channel in channels]
    return torch.from_numpy(np.stack(grown)).double()


def _jpeg(image: Tensor, quality: float, rng: Generator) -> Tensor:
    """Through JPEG: as colour where there are three channels, else channel by channel."""
    pixels = (255 * image).round().to(torch.uint8).numpy()
    pictures = [pixels.transpose(1, 2, 0)] if len(pixels) == 3 else list(pixels)
    decoded = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as opened:
            decoded.append(np.asarray(opened))
    together = decoded[0].transpose(2, 0, 1) if len(pixels) == 3 else np.stack(decoded)
    return torch.from_numpy(together / 255)


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolved with `kernel` (odd sides) scaled to unit sum; edge pixels are repeated outwards."""
    height, width = image.shape[1:]
    down, right = kernel.shape[0] - 1, kernel.shape[1] - 1
    margins = (right // 2, right // 2, down // 2, down // 2)
    padded = functional.pad(image[:, None], margins, mode="replicate")[:, 0]
    total = torch.zeros_like(image)
    for y, x in kernel.nonzero().tolist():  # a line's kernel is mostly 0
        total += kernel[y, x] * padded[:, down - y : down - y + height, right - x : right - x + width]
    return total / kernel.sum()


def _pixels(length: float, image: Tensor) -> float:
    """A length that is given for 32 x 32 images, in pixels of this one."""
    return length * min(image.shape[1:]) / _SIDE


def _radius(length: float, image: Tensor) -> int:
    return max(1, math.ceil(_pixels(length, image)))


class _Kind(NamedTuple):
    apply: Callable[[Tensor, float, Generator], Tensor]  # image [C, H, W] float64, strength, rng -> image
    strengths: tuple[float, float, float, float, float]


_KINDS: dict[Corruption, _Kind] = {
    Corruption.GAUSSIAN_NOISE: _Kind(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    Corruption.SHOT_NOISE: _Kind(_shot_noise, (500, 250, 100, 75, 50)),
    Corruption.IMPULSE_NOISE: _Kind(_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    Corruption.GAUSSIAN_BLUR: _Kind(_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    Corruption.MOTION_BLUR: _Kind(_motion_blur, (1.0, 1.5, 2.0, 2.25, 2.5)),
    Corruption.FOG: _Kind(_fog, (0.2, 0.5, 0.75, 1.0, 1.5)),
    Corruption.BRIGHTNESS: _Kind(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    Corruption.CONTRAST: _Kind(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    Corruption.PIXELATE: _Kind(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    Corruption.JPEG: _Kind(_jpeg, (80, 65, 58, 50, 40)),
}
