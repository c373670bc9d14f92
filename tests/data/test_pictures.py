"""Odd pictures: each gives the right pixels, or DataError naming the file."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hosnn.data.pictures import LARGEST_SIDE, decode, is_lossless
from hosnn.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
FEW_COLOURS = np.array([[255, 0, 0], [0, 255, 7], [3, 2, 1]], np.uint8)[np.arange(24).reshape(4, 6) % 3]
BLACK_AND_WHITE = np.where(GREY > 127, 255, 0).astype(np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(pixels: NDArray[np.uint8], lowest: int = 255) -> Image.Image:
    """The pixels with alpha 255, but `lowest` in one place."""
    image = Image.fromarray(pixels)
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[1, 2] = lowest
    image.putalpha(Image.fromarray(alpha))
    return image


def palette() -> Image.Image:
    return Image.fromarray(FEW_COLOURS).quantize(3)


def png(bits: int, colour_type: int, rows: bytes, width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG of unfiltered rows, in forms that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    step = len(rows) // max(height, 1)
    filtered = b"".join(b"\0" + rows[at : at + step] for at in range(0, len(rows), step)) if step else b""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def transparent_value(*values: int) -> bytes:
    """PNG's chunk that makes one grey value, or colour, transparent."""
    content = struct.pack(f">{len(values)}H", *values)
    name = b"tRNS" + content
    return struct.pack(">I", len(content)) + name + struct.pack(">I", zlib.crc32(name))


def two_frames(kind: str) -> bytes:
    other = Image.fromarray(255 - COLOUR)
    return saved(Image.fromarray(COLOUR), kind, save_all=True, append_images=[other], duration=100, lossless=True)


def webp_chunks(encoded: bytes) -> list[bytes]:
    names, at = [], 12
    while at < len(encoded):
        names.append(encoded[at : at + 4])
        size = int.from_bytes(encoded[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return names


UNUSED_GREY = next(value for value in range(256) if value not in GREY)
GREY16 = GREY.astype(">u2") * 257
EXTENDED_WEBP = saved(Image.fromarray(COLOUR), "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")

EXACT: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "grey PNG": (saved(Image.fromarray(GREY)), GREY),
    "colour PNG": (saved(Image.fromarray(COLOUR)), COLOUR),
    "interlaced rows of 4 bits": (png(4, 0, bytes([0x1F, 0x07]), 4, 1), np.array([[17, 255, 0, 119]], np.uint8)),
    "grey with opaque alpha": (saved(with_alpha(GREY)), GREY),
    "colour with opaque alpha": (saved(with_alpha(COLOUR)), COLOUR),
    "palette": (saved(palette()), FEW_COLOURS),
    "palette, all entries opaque": (saved(palette(), transparency=b"\xff\xff\xff"), FEW_COLOURS),
    "1 bit": (saved(Image.fromarray(BLACK_AND_WHITE).convert("1", dither=Image.Dither.NONE)), BLACK_AND_WHITE),
    "a transparent grey that is not there": (
        png(8, 0, GREY.tobytes(), 6, 4, transparent_value(UNUSED_GREY)),
        GREY,
    ),
    "lossless WebP": (saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    "lossless WebP with opaque alpha": (saved(with_alpha(COLOUR), "WEBP", lossless=True), COLOUR),
    "lossless WebP in an extended container": (EXTENDED_WEBP, COLOUR),
}


@pytest.mark.parametrize(("encoded", "pixels"), EXACT.values(), ids=EXACT)
def test_lossless_pictures_give_their_pixels(encoded: bytes, pixels: NDArray[np.uint8]) -> None:
    picture = decode(encoded, "odd.png")
    assert picture.exact
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, pixels if pixels.ndim == 3 else pixels[:, :, None])


SMOOTH = np.stack(np.broadcast_arrays(np.arange(0, 160, 10)[:, None], np.arange(0, 160, 10), 90), 2).astype(np.uint8)
LOSSY = {
    "JPEG": saved(Image.fromarray(SMOOTH), "JPEG", quality=95, subsampling=0),
    "progressive JPEG": saved(Image.fromarray(SMOOTH), "JPEG", quality=95, subsampling=0, progressive=True),
    "lossy WebP": saved(Image.fromarray(SMOOTH), "WEBP", quality=100),
    "lossy WebP with opaque alpha": saved(with_alpha(SMOOTH), "WEBP", quality=100),
    "lossy WebP in an extended container": saved(
        Image.fromarray(SMOOTH), "WEBP", quality=100, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    ),
}


@pytest.mark.parametrize("encoded", LOSSY.values(), ids=LOSSY)
def test_lossy_pictures_are_told_apart(encoded: bytes) -> None:
    picture = decode(encoded, "odd.jpg")
    assert not picture.exact
    assert np.abs(picture.pixels.astype(int) - SMOOTH).mean() < 4


def test_the_containers_are_those_that_are_meant() -> None:
    assert webp_chunks(EXTENDED_WEBP)[:2] == [b"VP8X", b"VP8L"]
    assert b"VP8 " in webp_chunks(LOSSY["lossy WebP in an extended container"])
    assert webp_chunks(LOSSY["lossy WebP in an extended container"])[0] == b"VP8X"
    assert not is_lossless(b"RIFF\x10\0\0\0WEBPVP8X") and not is_lossless(b"")


UPRIGHT = {  # by EXIF orientation: what the stored rows and columns of an upright picture are
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright_as_their_camera_was_held(orientation: int, kind: str) -> None:
    stored = np.ascontiguousarray(UPRIGHT[orientation](COLOUR))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = saved(Image.fromarray(stored), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode(encoded, "held.png", size=(4, 6)).pixels, COLOUR)
    with pytest.raises(DataError, match=r"held\.png: the picture is 6x4, expected 4x6"):
        decode(encoded, "held.png", size=(6, 4))


def test_a_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = saved(Image.fromarray(SMOOTH[:, :8]), "JPEG", quality=95, subsampling=0, exif=exif)
    turned = np.rot90(SMOOTH[:, :8], -1)  # orientation 6: turn clockwise
    assert np.abs(decode(encoded, "x", size=(8, 16)).pixels.astype(int) - turned).mean() < 4


CMYK = Image.fromarray(np.concatenate([COLOUR, GREY[:, :, None]], 2), "CMYK")
REFUSED: dict[str, tuple[bytes, str]] = {
    "grey with transparency": (saved(with_alpha(GREY, 254)), "transparent in places"),
    "colour with transparency": (saved(with_alpha(COLOUR, 0)), "transparent in places"),
    "WebP with transparency": (saved(with_alpha(COLOUR, 9), "WEBP", lossless=True), "transparent in places"),
    "palette with a transparent entry": (saved(palette(), transparency=1), "transparent in places"),
    "palette with half-transparent entries": (saved(palette(), transparency=b"\xff\x80\xff"), "transparent in places"),
    "a transparent grey": (png(8, 0, GREY.tobytes(), 6, 4, transparent_value(int(GREY[2, 3]))), "transparent in"),
    "a transparent colour": (
        png(8, 2, COLOUR.tobytes(), 6, 4, transparent_value(*map(int, COLOUR[3, 3]))),
        "transparent in places",
    ),
    "1 bit, black transparent": (png(1, 0, bytes([0xA0]), 4, 1, transparent_value(0)), "transparent in places"),
    "16 bit grey": (png(16, 0, GREY16.tobytes(), 6, 4), "16 bits"),
    "16 bit colour": (png(16, 2, (COLOUR.astype(">u2") * 257).tobytes(), 6, 4), "16 bits"),
    "16 bit grey with alpha": (png(16, 4, np.stack([GREY16, GREY16 * 0 - 1], 2).tobytes(), 6, 4), "16 bits"),
    "16 bit colour with alpha": (png(16, 6, np.full((4, 6, 4), 65535, ">u2").tobytes(), 6, 4), "16 bits"),
    "CMYK": (saved(CMYK, "JPEG"), "mode CMYK, expected grey or RGB"),
    "animated PNG": (two_frames("PNG"), r"moves \(2 frames\)"),
    "animated WebP": (two_frames("WEBP"), r"moves \(2 frames\)"),
    "GIF": (saved(Image.fromarray(GREY), "GIF"), "expected a whole PNG, JPEG or WebP"),
    "BMP": (saved(Image.fromarray(COLOUR), "BMP"), "expected a whole PNG, JPEG or WebP"),
    "TIFF": (saved(Image.fromarray(COLOUR), "TIFF"), "expected a whole PNG, JPEG or WebP"),
    "a web page": (b"<!DOCTYPE html><html>log in</html>", "does not decode"),
    "nothing": (b"", "does not decode"),
    "too wide": (png(8, 0, b"", LARGEST_SIDE + 1, 1), f"is {LARGEST_SIDE + 1}x1, expected at most {LARGEST_SIDE}"),
    "a decompression bomb": (png(8, 2, b"", 60_000, 60_000), "decode|at most"),
    "a header that claims billions": (png(8, 2, b"", 2**31 - 1, 2**31 - 1), "decode|at most"),
    "no pixels": (png(8, 0, b"", 0, 0), "does not decode"),
}


@pytest.mark.parametrize(("encoded", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_right_pixels_is_refused_by_name(encoded: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^folder/odd\.png: .*({message})"):
        decode(encoded, "folder/odd.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_cut_anywhere_is_refused(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = saved(Image.fromarray(COLOUR), kind, **options)
    whole = decode(encoded, "whole").pixels
    refused = 0
    for length in range(0, len(encoded), 7):
        try:
            np.testing.assert_array_equal(decode(encoded[:length], "cut.png").pixels, whole)  # all pixels were there
        except DataError as error:
            assert str(error).startswith("cut.png: ")
            refused += 1
    assert refused > len(encoded) // 7 // 2


EVERY = [content for content, _ in EXACT.values()] + list(LOSSY.values()) + [content for content, _ in REFUSED.values()]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata in pictures that it reads all the same
def test_random_damage_gives_pixels_or_a_data_error() -> None:
    rng = np.random.default_rng(1)
    for encoded in filter(None, EVERY):
        for _ in range(20):
            damaged = np.frombuffer(encoded, np.uint8).copy()
            damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
            try:
                pixels = decode(damaged.tobytes(), "damaged.png").pixels
            except DataError as error:
                assert str(error).startswith("damaged.png: ")
            else:
                assert pixels.dtype == np.uint8 and pixels.ndim == 3


def test_the_size_of_the_others_is_asked_for() -> None:
    encoded = saved(Image.fromarray(COLOUR))
    assert decode(encoded, "x", size=(4, 6)).pixels.shape == (4, 6, 3)
    with pytest.raises(DataError, match=r"x: the picture is 6x4, expected 4x6 as the others; resize it"):
        decode(encoded, "x", size=(6, 4))
