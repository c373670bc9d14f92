"""Checks of the images and labels passed to a model or an evaluation.

Legend: B batch, C channels, H height, W width, T time.
"""

import torch
from torch import Tensor

from hosnn.errors import ShapeError


def check_images(x: Tensor, shape: tuple[int, ...] | None = None, origin: str = "") -> None:
    """Raise ShapeError unless x is a batch of raw pixels: float32 or float64, finite, in [0, 1].

    x       [B, C, H, W], or frames [B, T, C, H, W]; B > 0
    shape   of one sample, without B; None accepts any [C, H, W] or [T, C, H, W]
    origin  where they come from, for messages

    Reads every pixel and so waits for an accelerator: call it once per batch or data set, not inside an attack.
    """
    came = _described(x, origin)
    if not x.is_floating_point() or x.dtype.itemsize < 4:
        check_pixels(x, origin)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        expected = ", ".join(map(str, ("B", *shape)))
        raise ShapeError(f"{came}, expected [{expected}]; resize the images, or use a model made for this size")
    if x.dim() not in (4, 5):
        raise ShapeError(f"{came}, expected [B, C, H, W] or [B, T, C, H, W]; one image needs x.unsqueeze(0)")
    if x.numel() == 0:
        raise ShapeError(f"{came}, expected at least one image with at least one pixel; is the loader empty?")
    check_pixels(x, origin)


def check_pixels(x: Tensor, origin: str = "") -> None:
    """Raise ShapeError unless x, of any shape with at least one number, is float32 or float64, finite, in [0, 1]."""
    came = _described(x, origin)
    if not x.is_floating_point():
        divide = "; convert with x.float() / 255" if x.dtype == torch.uint8 else "; convert with x.float()"
        raise ShapeError(f"{came}, expected floating point in [0, 1]{divide}")
    if x.dtype.itemsize < 4:
        raise ShapeError(
            f"{came}, expected float32 or float64: fewer bits round pixels, and attacks inside a threat, by more than "
            "they may; take the original pixels, or x.float() if they are gone"
        )
    low, high = (extreme.item() for extreme in x.detach().aminmax())
    if not (abs(low) < float("inf") and abs(high) < float("inf")):  # aminmax propagates NaN
        raise ShapeError(f"{came} with NaN or infinite pixels, expected finite ones in [0, 1]; look at the source")
    if low < 0 or high > 1:
        if low >= 0 and 2 < high <= 255:
            advice = "these look like 0..255: divide by 255"
        elif low < 0:
            advice = "these look normalised: pass raw pixels and make normalisation the model's first layer"
        else:
            advice = "clamp or rescale them"
        raise ShapeError(f"{came} in [{low:g}, {high:g}], expected [0, 1]; {advice}")


def _described(x: Tensor, origin: str) -> str:
    return f"{origin}{': ' if origin else ''}images are {x.dtype} {list(x.shape)}"


def check_labels(y: Tensor, num_classes: int) -> None:
    """Raise ShapeError unless y is [B] int64 with B > 0 and values in 0..num_classes-1."""
    came = f"labels are {y.dtype} {list(y.shape)}"
    if y.dtype != torch.int64 or y.dim() != 1 or len(y) == 0:
        raise ShapeError(f"{came}, expected torch.int64 [B], one class number per image; one-hot needs y.argmax(1)")
    low, high = (int(extreme) for extreme in y.aminmax())
    if low < 0 or high >= num_classes:
        raise ShapeError(
            f"{came} in {low}..{high}, expected 0..{num_classes - 1} for {num_classes} classes; "
            "does the model belong to this data set?"
        )
