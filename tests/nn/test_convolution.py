"""The way back to images is torch's own, by another route."""

import pytest
import torch
from torch import nn

from hosnn.nn.convolution import FEW, convolve_images

GEOMETRIES = (
    {"kernel_size": 5},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (0, 1), "dilation": (1, 2)},
)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("channels", [1, 3, FEW + 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_convolution(geometry, channels, bias, memory_format) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, 6, bias=bias, **geometry).double()
    images = torch.rand(3, channels, 11, 12, dtype=torch.float64).requires_grad_()
    expected, found = convolution(images), convolve_images(convolution, images)
    assert torch.equal(expected, found)
    gradient = torch.randn_like(expected).contiguous(memory_format=memory_format)
    inputs = (images, *convolution.parameters())
    for right, ours in zip(
        torch.autograd.grad(expected, inputs, gradient), torch.autograd.grad(found, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_half_precision_goes_another_way_to_the_same(geometry) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 6, bias=False, **geometry)
    images = torch.rand(3, 1, 11, 12).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = convolution(images), convolve_images(convolution, images)
    assert found.dtype == torch.bfloat16
    gradient = torch.randn_like(expected)
    (right,), (ours,) = (torch.autograd.grad(each, images, gradient) for each in (expected, found))
    assert ours.dtype == images.dtype
    torch.testing.assert_close(ours, right, rtol=0.02, atol=0.02)


def test_second_derivatives_are_kept() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 2, 3, padding=1).double()
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: convolve_images(convolution, x).pow(3), images)


def test_only_images_need_this() -> None:
    """No gradient with respect to images is wanted: the convolution itself."""
    convolution = nn.Conv2d(1, 2, 3)
    node = convolve_images(convolution, torch.rand(2, 1, 5, 5)).grad_fn
    assert node is not None
    assert node.name().startswith("Convolution")
    with torch.no_grad():
        assert convolve_images(convolution, torch.rand(2, 1, 5, 5).requires_grad_()).grad_fn is None
