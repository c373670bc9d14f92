"""One forward pass of a network with hooks on some of its layers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hosnn.errors import ShapeError


def forward_with_hooks(
    model: nn.Module, images: Tensor, layers: Mapping[str, nn.Module], hook_for: Callable[[str], Any]
) -> Tensor:
    """`model(images)`, with `hook_for(name)` before the forward of each layer, by module path; no hook stays behind.

    Raises ShapeError if the network does not take the images.
    """
    handles = [layer.register_forward_pre_hook(hook_for(name)) for name, layer in layers.items()]
    try:
        output: Tensor = model(images)
    except RuntimeError as error:  # torch's message for a wrong number of channels, or of pixels
        raise ShapeError(
            f"the network does not take images {list(images.shape)}: {error}; pass images of the shape it was made for"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return output
