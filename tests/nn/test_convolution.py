"""The way back to images is torch's own, by another route."""

import pytest
import torch
from torch import nn

from hosnn.errors import BackendError
from hosnn.nn.convolution import FEW_CHANNELS, channels_last, convolve_images
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import neurons
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.kernels import backend

GEOMETRIES = (
    {"kernel_size": 5},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (0, 1), "dilation": (1, 2)},
)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("channels", [1, 3, FEW_CHANNELS + 1])
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


def test_a_second_derivative_is_refused() -> None:
    images = torch.rand(2, 1, 5, 5).requires_grad_()
    with pytest.raises(BackendError, match="no second derivative"):
        torch.autograd.grad(convolve_images(nn.Conv2d(1, 2, 3), images).sum(), images, create_graph=True)


def test_eager_networks_have_mixed_second_derivatives() -> None:
    """What gradient inversion needs: the gradient of a weight's gradient with respect to the image."""
    torch.manual_seed(0)
    network = LeNet(channels=(2, 3), hidden=8, image=(1, 16, 16)).build().double().eval()
    for layer in neurons(network).values():
        layer.rule = bptt()
    with torch.no_grad():  # or nothing fires
        for parameter in network.parameters():
            parameter.mul_(4)
    body = nn.Sequential(*network.body.children())  # that fuses nothing
    images = torch.rand(2, 1, 16, 16, dtype=torch.float64).requires_grad_()
    convolution = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    with backend.choose("eager"):
        (gradient,) = torch.autograd.grad(network(images).square().sum(), convolution.weight, create_graph=True)
        (found,) = torch.autograd.grad(gradient.square().sum(), images)
        before = SpikingNetwork(network.normalise, network.coding, body, network.readout)
        (gradient,) = torch.autograd.grad(before(images).square().sum(), convolution.weight, create_graph=True)
        (expected,) = torch.autograd.grad(gradient.square().sum(), images)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected)


def test_only_images_need_this() -> None:
    """No gradient with respect to images is wanted: the convolution itself."""
    convolution = nn.Conv2d(1, 2, 3)
    node = convolve_images(convolution, torch.rand(2, 1, 5, 5)).grad_fn
    assert node is not None
    assert node.name().startswith("Convolution")
    with torch.no_grad():
        assert convolve_images(convolution, torch.rand(2, 1, 5, 5).requires_grad_()).grad_fn is None


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_images_with_channels_last_stay_so_through_a_convolution(channels: int) -> None:
    images = torch.rand(4, channels, 9, 7).requires_grad_()
    convolution = nn.Conv2d(channels, 16, 3)
    laid = channels_last(images)
    seen = convolution(laid)
    assert torch.equal(laid, images)
    assert seen.movedim(1, -1).is_contiguous()
    torch.testing.assert_close(seen, convolution(images))
    (back,) = torch.autograd.grad(seen.sum(), images)
    torch.testing.assert_close(back, torch.autograd.grad(convolution(images).sum(), images)[0])
