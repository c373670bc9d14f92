"""Each operation against Pillow's, whose arithmetic the authors' code uses."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from hosnn.data.augment import augment
from hosnn.data.trivial_augment import OPERATIONS, STRENGTHS, TrivialAugment

SMOOTH = torch.nn.functional.interpolate(  # neighbours are alike, as in photographs, and channels differ
    torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.7, 0.4])[:, None, None],
    (32, 32),
    mode="bilinear",
)
PICTURES = (SMOOTH * 255).byte()
FLAT = torch.full_like(PICTURES, 77)
Reference = Callable[[Image.Image, float], Image.Image]


def affine(matrix: Callable[[float], tuple[float, ...]]) -> Reference:
    return lambda image, share: image.transform(image.size, Image.Transform.AFFINE, matrix(share))


def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Reference:
    return lambda image, share: kind(image).enhance(1 + 0.99 * share)


REFERENCES: dict[str, tuple[Reference, int]] = {  # what Pillow does at a share of full strength, and how far we may be
    "identity": (lambda image, share: image, 0),
    "shear x": (affine(lambda share: (1, 0.99 * share, 0, 0, 1, 0)), 0),
    "shear y": (affine(lambda share: (1, 0, 0, 0.99 * share, 1, 0)), 0),
    "shift x": (affine(lambda share: (1, 0, 32 * share, 0, 1, 0)), 0),
    "shift y": (affine(lambda share: (1, 0, 0, 0, 1, 32 * share)), 0),
    "rotate": (lambda image, share: image.rotate(135 * share), 0),
    "brightness": (enhanced(ImageEnhance.Brightness), 1),
    "colour": (enhanced(ImageEnhance.Color), 1),
    "contrast": (enhanced(ImageEnhance.Contrast), 1),
    "sharpness": (enhanced(ImageEnhance.Sharpness), 1),
    "posterize": (lambda image, share: ImageOps.posterize(image, 8 - round(6 * abs(share))), 0),
    "solarize": (lambda image, share: ImageOps.solarize(image, 255 - 255 * abs(share)), 0),  # type: ignore[arg-type]
    "autocontrast": (lambda image, share: ImageOps.autocontrast(image), 1),
    "equalize": (lambda image, share: ImageOps.equalize(image), 0),
}


def apply(name: str, pictures: Tensor, strength: int) -> Tensor:
    return OPERATIONS[name](pictures.int(), torch.full((len(pictures),), strength)).byte()


def by_pillow(reference: Reference, pictures: Tensor, strength: int) -> Tensor:
    results = [
        np.array(reference(Image.fromarray(picture.permute(1, 2, 0).numpy()), strength / (STRENGTHS - 1)))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def test_there_are_fourteen_operations_each_with_a_reference():
    assert list(OPERATIONS) == list(REFERENCES)
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("pictures", [PICTURES, FLAT], ids=["smooth", "flat"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(name: str, pictures: Tensor):
    reference, tolerance = REFERENCES[name]
    for strength in (-30, -29, -17, -10, -3, 0, 1, 5, 14, 21, 30):
        ours, theirs = apply(name, pictures, strength), by_pillow(reference, pictures, strength)
        far = ((ours.int() - theirs.int()).abs() > tolerance).float().mean().item()
        # A pixel whose origin lies on the border of two may fall to either.
        assert far <= (0.005 if name in ("shear x", "shear y", "rotate") else 0), (name, strength, far)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_full_strength_does_something(name: str):
    assert not torch.equal(apply(name, PICTURES, STRENGTHS - 1), PICTURES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_strength_does_nothing_where_there_is_a_strength(name: str):
    # Solarize at strength 0 inverts what is at 255 and nothing else.
    if name not in ("autocontrast", "equalize"):
        assert torch.equal(apply(name, PICTURES.clamp(max=254), 0), PICTURES.clamp(max=254))


def test_grey_pictures_are_treated_as_colour_pictures_with_equal_channels():
    grey = PICTURES[:, :1]
    for name in OPERATIONS:
        colour = apply(name, grey.expand(-1, 3, -1, -1), 13)
        assert torch.equal(colour[:, :1], apply(name, grey, 13)), name


def test_every_operation_and_strength_is_drawn_about_equally_often():
    drawn: list[tuple[int, int]] = []
    original = dict(OPERATIONS)

    def noting(number: int) -> Callable[[Tensor, Tensor], Tensor]:
        def note(pixels: Tensor, strength: Tensor) -> Tensor:
            drawn.extend((number, level) for level in strength.tolist())
            return pixels

        return note

    count = 14 * 31 * 20
    try:
        OPERATIONS.update({name: noting(number) for number, name in enumerate(original)})
        images = torch.zeros(count, 1, 1, 1, dtype=torch.uint8)
        augment(images, torch.arange(count), TrivialAugment(), seed=0, epoch=0)
    finally:
        OPERATIONS.update(original)
    operations = torch.tensor([number for number, _ in drawn]).bincount(minlength=14)
    strengths = torch.tensor([level for _, level in drawn])
    assert len(drawn) == count
    assert (operations - count / 14).abs().max() < 5 * math.sqrt(count / 14)
    assert (strengths.abs().bincount(minlength=31) - count / 31).abs().max() < 5 * math.sqrt(count / 31)
    assert 0.45 < (strengths > 0).sum() / (strengths != 0).sum() < 0.55
