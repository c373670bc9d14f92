"""Corruptions: in range, the same for an image whatever its batch, stronger with severity, and what their names say."""

import pytest
import torch
from torch import Tensor

from hosnn.data.corruptions import SEVERITIES, Corruption, corrupt
from hosnn.errors import ConfigError, ShapeError
from tests.covering import each_pair, each_value

EVERY = pytest.mark.parametrize("kind", Corruption, ids=lambda kind: kind.value)
NOISES = (Corruption.GAUSSIAN_NOISE, Corruption.SHOT_NOISE, Corruption.IMPULSE_NOISE)
RANDOM = (*NOISES, Corruption.MOTION_BLUR, Corruption.FOG)


def photographs(count: int = 6, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Smooth shapes with some edges and texture, away from black and white."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    edges = (smooth.roll(3, 3) > 0.5).float()
    texture = torch.rand(count, channels, height, width, generator=rng)
    return 0.1 + 0.75 * (0.5 * smooth + 0.3 * edges + 0.2 * texture)


def places(images: Tensor, start: int = 0) -> Tensor:
    return torch.arange(start, start + len(images))


def distances(kind: Corruption, images: Tensor) -> list[float]:
    """Mean L2 distance from the clean image, by severity."""
    found = (corrupt(images, kind, severity, 0, places(images)) for severity in SEVERITIES)
    return [(worse - images).flatten(1).norm(dim=1).mean().item() for worse in found]


SHAPES = ((1, 28, 28), (3, 32, 32), (2, 7, 19), (3, 3, 3), (1, 1, 1))


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"), each_pair(tuple(Corruption), SHAPES, (torch.float32, torch.float64))
)
def test_images_of_any_size_stay_images(kind: Corruption, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = photographs(2, *shape).to(dtype)
    for severity in (1, 5):
        worse = corrupt(images, kind, severity, 0, places(images))
        assert worse.shape == images.shape and worse.dtype == dtype
        assert worse.min() >= 0 and worse.max() <= 1 and bool(worse.isfinite().all())


@pytest.mark.parametrize(("kind", "shape"), each_value(tuple(Corruption), ((3, 32, 32), (1, 28, 28), (3, 64, 48))))
def test_severity_grows_the_distance(kind: Corruption, shape: tuple[int, int, int]) -> None:
    found = distances(kind, photographs(12, *shape))
    assert found == sorted(found) and found[0] > 0 and found[-1] > 1.1 * found[0]


@EVERY
def test_an_image_is_corrupted_alike_in_every_batch_and_order(kind: Corruption) -> None:
    images = photographs()
    whole = corrupt(images, kind, 3, 5, places(images))
    assert torch.equal(corrupt(images, kind, 3, 5, places(images)), whole)
    chosen = torch.tensor([4, 1, 5])
    assert torch.equal(corrupt(images[chosen], kind, 3, 5, chosen), whole[chosen])


@pytest.mark.parametrize("kind", RANDOM, ids=lambda kind: kind.value)
def test_seed_and_index_choose_the_random_numbers(kind: Corruption) -> None:
    images = photographs(1).repeat(2, 1, 1, 1)
    first, second = corrupt(images, kind, 5, 0, places(images))
    assert not torch.equal(first, second)
    assert not torch.equal(corrupt(images, kind, 5, 1, places(images))[0], first)
    assert torch.equal(corrupt(images, kind, 5, -3, places(images)), corrupt(images, kind, 5, -3, places(images)))


def test_no_global_random_number_is_drawn_and_the_images_are_unchanged() -> None:
    images, state = photographs(), torch.get_rng_state()
    before = images.clone()
    for kind in Corruption:
        corrupt(images, kind, 5, 0, places(images))
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


def test_noise_has_the_strength_it_says() -> None:
    gray = torch.full((4, 3, 64, 64), 0.5, dtype=torch.float64)

    def noise(kind: Corruption) -> Tensor:
        return corrupt(gray, kind, 5, 0, places(gray)) - gray

    assert noise(Corruption.GAUSSIAN_NOISE).std().item() == pytest.approx(0.10, rel=0.02)
    assert noise(Corruption.SHOT_NOISE).var().item() == pytest.approx(0.5 / 50, rel=0.03)
    for kind in NOISES:
        assert noise(kind).mean().item() == pytest.approx(0, abs=0.003)
    moved = noise(Corruption.IMPULSE_NOISE)
    assert (moved != 0).double().mean().item() == pytest.approx(0.07, abs=0.005)
    assert set(moved.flatten().tolist()) == {-0.5, 0.0, 0.5}


def test_changes_without_noise_equal_their_closed_forms() -> None:
    images = photographs(3, 2).double()
    at = places(images)
    mean = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(corrupt(images, Corruption.CONTRAST, 5, 0, at), mean + 0.15 * (images - mean))
    torch.testing.assert_close(corrupt(images, Corruption.BRIGHTNESS, 2, 0, at), (images + 0.1).clamp(max=1))
    for kind in (Corruption.GAUSSIAN_BLUR, Corruption.MOTION_BLUR, Corruption.PIXELATE, Corruption.CONTRAST):
        flat = torch.full_like(images, 0.3)
        torch.testing.assert_close(corrupt(flat, kind, 5, 0, at), flat)


def test_a_blurred_point_is_a_gaussian_and_a_moved_one_a_line_to_one_side() -> None:
    point = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    point[..., 16, 16] = 1
    blurred = corrupt(point, Corruption.GAUSSIAN_BLUR, 5, 0, places(point))[0, 0]
    squared = (torch.arange(33) - 16.0).square().double()
    assert blurred.sum().item() == pytest.approx(1)
    assert (blurred.sum(1) @ squared).item() == pytest.approx((33 / 32) ** 2, rel=0.05)
    torch.testing.assert_close(blurred, blurred.flip(0).T)
    smeared = corrupt(point, Corruption.MOTION_BLUR, 5, 0, places(point))[0, 0]
    assert smeared.sum().item() == pytest.approx(1) and smeared[:, :16].sum() < 0.01
    assert smeared[16, 16] > 0.05


def test_blur_scales_with_the_image() -> None:
    small = photographs(4, 1, 32, 32)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert distances(Corruption.GAUSSIAN_BLUR, large)[4] == pytest.approx(
        2 * distances(Corruption.GAUSSIAN_BLUR, small)[4], rel=0.15
    )


def test_what_is_no_image_raises() -> None:
    images = photographs(2)
    with pytest.raises(ShapeError, match=r"pixels from .* expected \[0, 1\]"):
        corrupt(images * 255, Corruption.FOG, 1, 0, places(images))
    with pytest.raises(ShapeError, match="floating point"):
        corrupt((images * 255).byte(), Corruption.FOG, 1, 0, places(images))
    with pytest.raises(ShapeError, match="one int64 each"):
        corrupt(images, Corruption.FOG, 1, 0, torch.arange(3))
    with pytest.raises(ConfigError, match="severity 6"):
        corrupt(images, Corruption.FOG, 6, 0, places(images))
    assert corrupt(images[:0], Corruption.FOG, 1, 0, places(images[:0])).shape == (0, 3, 32, 32)
