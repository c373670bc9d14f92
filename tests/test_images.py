import pytest
import torch
from torch import Tensor

from hosnn.errors import ShapeError
from hosnn.images import check_images, check_labels, check_pixels

GOOD = torch.linspace(0, 1, 2 * 1 * 4 * 5).reshape(2, 1, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_raw_pixels_pass_in_full_precision(dtype: torch.dtype) -> None:
    check_images(GOOD.to(dtype).requires_grad_(), (1, 4, 5))


def test_frames_pass() -> None:
    check_images(GOOD.unsqueeze(1), None)
    check_images(GOOD.unsqueeze(1), (1, 1, 4, 5))


def with_pixel(value: float) -> Tensor:
    x = GOOD.clone()
    x[1, 0, 2, 2] = value
    return x


BAD_IMAGES = {
    "bytes": ((GOOD * 255).byte(), r"torch.uint8 .*convert with x.float\(\) / 255"),
    "integers": (GOOD.long(), r"torch.int64 .*convert with x.float\(\)"),
    "half": (GOOD.half(), r"torch.float16 .*expected float32 or float64"),
    "bfloat16": (GOOD.bfloat16(), r"torch.bfloat16 .*expected float32 or float64"),
    "8 bits": (GOOD.to(torch.float8_e4m3fn), r"torch.float8_e4m3fn .*expected float32 or float64"),
    "0..255": (GOOD * 255, r"in \[0, 255\], expected \[0, 1\]; .*divide by 255"),
    "normalised": ((GOOD - 0.5) / 0.25, r"in \[-2, 2\].*make normalisation the model's first layer"),
    "just above 1": (with_pixel(1.001), "clamp or rescale"),
    "just below 0": (with_pixel(-1e-6), r"expected \[0, 1\]"),
    "NaN": (with_pixel(float("nan")), "NaN or infinite"),
    "infinite": (with_pixel(float("inf")), "NaN or infinite"),
    "minus infinite": (with_pixel(float("-inf")), "NaN or infinite"),
    "another size": (GOOD[..., :3], r"\[2, 1, 4, 3\], expected \[B, 1, 4, 5\]"),
    "one image": (GOOD[0], r"\[1, 4, 5\], expected \[B, 1, 4, 5\]"),
    "empty batch": (GOOD[:0], "at least one image"),
}


@pytest.mark.parametrize(("x", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_raise(x: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_images(x, (1, 4, 5))


def test_without_a_shape_the_number_of_dimensions_is_checked() -> None:
    with pytest.raises(ShapeError, match=r"one image needs x\.unsqueeze\(0\)"):
        check_images(GOOD[0])


@pytest.mark.parametrize("name", ["bytes", "0..255", "normalised", "NaN", "another size"])
def test_messages_begin_with_where_the_images_come_from(name: str) -> None:
    with pytest.raises(ShapeError, match=r"^calibrate: images are torch\.\w+ \[2, 1, 4"):
        check_images(BAD_IMAGES[name][0], (1, 4, 5), origin="calibrate")


@pytest.mark.parametrize("shape", [(3,), (2, 6), (4, 2, 1, 5, 5)])
def test_pixels_are_checked_in_any_shape(shape: tuple[int, ...]) -> None:
    check_pixels(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    for wrong, message in ((torch.full(shape, 2.0), "clamp or rescale"), (torch.zeros(shape).long(), r"x\.float\(\)")):
        with pytest.raises(ShapeError, match=message):
            check_pixels(wrong)


def test_labels() -> None:
    check_labels(torch.tensor([0, 9, 3]), 10)
    for y in (torch.tensor([0, 10]), torch.tensor([-1])):
        with pytest.raises(ShapeError, match=r"expected 0\.\.9 for 10 classes"):
            check_labels(y, 10)
    for y in (torch.tensor([0.0]), torch.eye(3).long(), torch.tensor([], dtype=torch.int64), torch.tensor(1)):
        with pytest.raises(ShapeError, match=r"expected torch\.int64 \[B\]"):
            check_labels(y, 10)
