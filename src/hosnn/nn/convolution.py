"""Convolution of images with a fast gradient with respect to the images, which attacks need at every step.

Shapes: B batch, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import BackendError

FEW_CHANNELS = 4
"""Up to this number of image channels, torch's gradient with respect to the image is slow on a CPU."""


def convolve_images(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """`convolution(images)`, [B, C, H, W] -> [B, C', H', W']; faster on a CPU if the images have few channels.

    It has no second derivative, like the fused neurons that follow it.
    """
    is_simple = convolution.groups == 1 and convolution.padding_mode == "zeros"
    is_supported = is_simple and not isinstance(convolution.padding, str)
    needs_gradient = images.requires_grad and torch.is_grad_enabled()
    if not is_supported or not needs_gradient or images.device.type != "cpu" or images.shape[1] > FEW_CHANNELS:
        return convolution(images)  # type: ignore[no-any-return]
    convolved = convolution(images.detach())
    return _ImageGradient.apply(images, convolution.weight, convolved, _geometry(convolution))  # type: ignore[no-any-return, no-untyped-call]


def channels_last(images: Tensor) -> Tensor:
    """The same [B, C, H, W] with channels innermost in memory; also for one channel the strides are those of NHWC."""
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def _geometry(convolution: nn.Conv2d) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(convolution, name)) for name in ("stride", "padding", "dilation")}


class _ImageGradient(torch.autograd.Function):
    """Forward: `convolved`, computed before; backward: also its gradient with respect to the images."""

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
        compute = _by_transposed_convolution if gradient.dtype == torch.bfloat16 else _by_matrix_product
        return compute(gradient, weight.to(gradient.dtype), ctx.size, ctx.geometry).to(ctx.dtype), None, gradient, None


def _by_matrix_product(
    gradient: Tensor, weight: Tensor, size: torch.Size, geometry: dict[str, tuple[int, ...]]
) -> Tensor:
    """The gradients of all windows of an image by one matrix product, added where windows overlap."""
    by_position = gradient.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)  # no copy, channels last or not
    windows = torch.bmm(weight.flatten(1).t().expand(len(gradient), -1, -1), by_position)
    return functional.fold(windows, tuple(size), tuple(weight.shape[-2:]), **geometry)


def _by_transposed_convolution(
    gradient: Tensor, weight: Tensor, size: torch.Size, geometry: dict[str, tuple[int, ...]]
) -> Tensor:
    smallest_size = [
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
    output_padding = [n - smallest for n, smallest in zip(size, smallest_size, strict=True)]
    return functional.conv_transpose2d(
        gradient, weight, None, geometry["stride"], geometry["padding"], output_padding, 1, geometry["dilation"]
    )
