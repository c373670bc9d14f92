"""Decoding one picture: PNG, JPEG or WebP bytes to pixels, and whether the encoding kept every pixel as it was.

Legend: C channels, H height, W width.
"""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hosnn.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
"""No other decoder of Pillow meets untrusted bytes."""

LARGEST_SIDE = 4096
"""Pixels: larger pictures are refused before a pixel of them is decoded."""

DIRECT = ("1", "L", "RGB")
"""Pillow's modes without alpha or palette: black and white, grey, and red, green, blue, 8 bits each."""

PNG = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH = 24
"""Where a PNG file states the bits of a channel.  Read here because Pillow silently drops the lower 8 bits of 16."""

ORIENTATION = 0x0112
"""The EXIF tag for how a camera was held."""


class Picture(NamedTuple):
    """A decoded picture.

    pixels  [H, W, C] uint8, C = 1 (grey) or 3 (RGB)
    exact   whether the encoding is lossless: PNG or lossless WebP
    """

    pixels: NDArray[np.uint8]
    exact: bool


def is_lossless(encoded: bytes) -> bool:
    """Whether a picture's encoding keeps every pixel: PNG, or WebP whose image data is a VP8L chunk.

    Source: WebP container specification (RIFF chunks VP8, VP8L, VP8X), developers.google.com/speed/webp.
    """
    if encoded.startswith(PNG):
        return True
    if encoded[:4] != b"RIFF" or encoded[8:12] != b"WEBP":
        return False
    at = 12
    while at + 8 <= len(encoded):
        name, size = encoded[at : at + 4], int.from_bytes(encoded[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        at += 8 + size + size % 2
    return False


def decode(encoded: bytes, origin: str, size: tuple[int, int] | None = None) -> Picture:
    """A picture's pixels.

    origin  names the file in messages
    size    (H, W) that the picture must have, once turned as its EXIF orientation says; None: any
    A palette, black and white, and alpha that is opaque everywhere become grey or RGB without loss.
    Raises DataError, before any pixel is decoded where that can be told, for what is no PNG, JPEG or WebP, does not
    decode, is transparent, has 16 bits a channel, is in CMYK or another colour space, moves, is larger than 4096 pixels
    a side, or has another size.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            reason = _refusal(image, deep=encoded.startswith(PNG) and encoded[BIT_DEPTH] == 16)
            height, width = _size(image)
            if not reason and size is not None and (height, width) != size:
                reason = f"is {width}x{height}, expected {size[1]}x{size[0]} as the others; resize it"
            pixels = None if reason else _pixels(image)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(
            f"{origin}: the picture does not decode ({error}), expected a whole PNG, JPEG or WebP; get it again"
        ) from error
    if pixels is None:
        reason = reason or "is transparent in places, which has no one colour; flatten it onto a background"
        raise DataError(f"{origin}: the picture {reason}")
    return Picture(pixels, is_lossless(encoded))


def _refusal(image: Image.Image, deep: bool) -> str:
    """Why a picture, `deep` if it has 16 bits a channel, is not taken, known from its header; empty if it may be."""
    if max(image.size) > LARGEST_SIDE:
        return f"is {image.size[0]}x{image.size[1]}, expected at most {LARGEST_SIDE} pixels a side; resize it"
    if getattr(image, "n_frames", 1) > 1:
        return f"moves ({image.n_frames} frames), expected one still image; export one frame"  # type: ignore[attr-defined]
    if deep or image.mode.startswith(("I", "F")):
        return f"has mode {image.mode} (16 bits or more a channel), expected 8 bits; convert it"
    if image.mode not in (*DIRECT, "P", "LA", "PA", "RGBA"):
        return f"has mode {image.mode}, expected grey or RGB; convert it"
    return ""


def _size(image: Image.Image) -> tuple[int, int]:
    """(H, W) once turned upright."""
    width, height = image.size
    sideways = "exif" in image.info and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (width, height) if sideways else (height, width)


def _pixels(image: Image.Image) -> NDArray[np.uint8] | None:
    """[H, W, C]; None if the picture is transparent somewhere."""
    upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
    if upright.mode == "P":
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    elif upright.mode == "PA":
        upright = upright.convert("RGBA")
    elif upright.mode in DIRECT and "transparency" in upright.info:
        upright = upright.convert("RGBA" if upright.mode == "RGB" else "LA")
    if upright.mode in ("LA", "RGBA"):
        if upright.getchannel("A").getextrema() != (255, 255):
            return None
        upright = upright.convert("L" if upright.mode == "LA" else "RGB")
    elif upright.mode == "1":
        upright = upright.convert("L")
    pixels = np.asarray(upright)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
