"""Convolution of images with a fast gradient with respect to the images, which attacks need at every step.

Shapes: B batch, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import BackendError

FEW = 4
"""Channels of an image up to which the general gradient with respect to it is slow on a CPU."""


def convolve_images(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """`convolution(images)`, [B, C, H, W] -> [B, C', H', W']; on a CPU with a faster gradient of few channels.

    It has no second derivative, like the fused neurons that follow it.
    """
    plain = convolution.groups == 1 and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    needed = images.requires_grad and torch.is_grad_enabled()
    if not plain or not needed or images.device.type != "cpu" or images.shape[1] > FEW:
        return convolution(images)  # type: ignore[no-any-return]
    convolved = convolution(images.detach())
    return _ImageGradient.apply(images, convolution.weight, convolved, _geometry(convolution))  # type: ignore[no-any-return, no-untyped-call]


def channels_last(images: Tensor) -> Tensor:
    """The same [B, C, H, W] with channels innermost, by strides that say so even of a single channel."""
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def _geometry(convolution: nn.Conv2d) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(convolution, name)) for name in ("stride", "padding", "dilation")}


class _ImageGradient(torch.autograd.Function):
    """Forward: what was convolved already; backward: the convolution's gradient with respect to the images too."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, convolved: Tensor, geometry: dict[str, tuple[int, ...]]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.dtype, ctx.geometry = images.shape[-2:], images.dtype, geometry
        return convolved.view_as(convolved)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise BackendError("a fused network has no second derivative (create_graph=True); use the eager backend")
        (weight,) = ctx.saved_tensors
        gradient = grads[0]
        back = _transposed if gradient.dtype == torch.bfloat16 else _product
        return back(gradient, weight.to(gradient.dtype), ctx.size, ctx.geometry).to(ctx.dtype), None, gradient, None


def _product(gradient: Tensor, weight: Tensor, size: torch.Size, geometry: dict[str, tuple[int, ...]]) -> Tensor:
    """One matrix product per image gives the gradient of every window; they are added where windows overlap."""
    by_place = gradient.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)  # no copy, channels last or not
    windows = torch.bmm(weight.flatten(1).t().expand(len(gradient), -1, -1), by_place)
    return functional.fold(windows, tuple(size), tuple(weight.shape[-2:]), **geometry)


def _transposed(gradient: Tensor, weight: Tensor, size: torch.Size, geometry: dict[str, tuple[int, ...]]) -> Tensor:
    least = [
        (n - 1) * stride - 2 * padding + dilation * (k - 1) + 1
        for n, k, stride, padding, dilation in zip(
            gradient.shape[-2:],
            weight.shape[-2:],
            geometry["stride"],
            geometry["padding"],
            geometry["dilation"],
            strict=True,
        )
    ]
    more = [n - smallest for n, smallest in zip(size, least, strict=True)]
    return functional.conv_transpose2d(
        gradient, weight, None, geometry["stride"], geometry["padding"], more, 1, geometry["dilation"]
    )
