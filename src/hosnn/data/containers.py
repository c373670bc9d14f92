"""Images and labels in the containers people have them in, as the two tensors that everything here takes.

Legend: N rows, T time, C channels, H height, W width, K classes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from hosnn.errors import ShapeError
from hosnn.images import check_images

CHANNELS = (1, 2, 3, 4)
"""Numbers of channels by which their axis is told from height and width."""


def as_images(value: Any, origin: str) -> Tensor:
    """Images [N, C, H, W] or frames [N, T, C, H, W]: uint8 as they are, floating point as float32 in [0, 1].

    value  a tensor or array, or a list of those of one size; grey images may lack the channel axis, channels may come
           last
    Raises ShapeError naming `origin` for other shapes, values outside 0..255 or [0, 1], NaN, or other types, such as
    floats of 16 bits.
    """
    tensor = as_tensor(value, origin)
    if tensor.dim() == 3:
        tensor = tensor[:, None]
    elif tensor.dim() == 4 and tensor.shape[1] not in CHANNELS and tensor.shape[3] in CHANNELS:
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.dim() not in (4, 5) or tensor.numel() == 0:
        raise ShapeError(
            f"{origin}: images are {list(tensor.shape)}; expected [N, C, H, W], [N, H, W, C], [N, H, W] or frames "
            "[N, T, C, H, W], with at least one image"
        )
    if tensor.is_complex():
        raise ShapeError(f"{origin}: images are {tensor.dtype}; expected whole numbers 0..255, or [0, 1] as floats")
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8).mul(255).contiguous()
    if not tensor.is_floating_point():
        low, high = (int(extreme) for extreme in tensor.long().aminmax())
        if low < 0 or high > 255:
            raise ShapeError(
                f"{origin}: images are {tensor.dtype} in {low}..{high}; expected 0..255, or [0, 1] as floats"
            )
        return tensor.to(torch.uint8).contiguous()
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    check_images(tensor, origin=origin)
    return tensor.contiguous()


def as_labels(value: Any, origin: str, classes: int | None = None) -> Tensor:
    """Class numbers [N] int64.

    value    integers in a tensor, array or list, of any type, [N] or [N, 1]; or one-hot rows [N, K]
    classes  how many there are; None: any number
    Raises ShapeError naming `origin` for anything else, or numbers outside 0..classes - 1.
    """
    tensor = as_tensor(value, origin)
    came = f"{origin}: labels are {tensor.dtype} {list(tensor.shape)}"
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.dim() == 2:
        one_hot = bool(((tensor == 0) | (tensor == 1)).all()) and bool((tensor.sum(1) == 1).all())
        if not one_hot:
            raise ShapeError(
                f"{came}; expected class numbers [N], or one-hot rows with a single 1; soft labels have no class"
            )
        tensor = tensor.to(torch.uint8).argmax(1)
    if tensor.is_floating_point() and bool((tensor == tensor.round()).all()):
        tensor = tensor.long()
    if tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ShapeError(f"{came}; expected whole class numbers [N], one per image")
    labels = tensor.to(torch.int64)
    if len(labels) and (int(labels.min()) < 0 or (classes is not None and int(labels.max()) >= classes)):
        top = "classes - 1" if classes is None else classes - 1
        raise ShapeError(f"{came} in {int(labels.min())}..{int(labels.max())}; expected 0..{top}")
    return labels


def as_tensor(value: Any, origin: str) -> Tensor:
    """A detached tensor of a tensor, an array, numbers, or a list of tensors of one shape.  Raises ShapeError."""
    try:
        if isinstance(value, Tensor):
            return value.detach()
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
        if isinstance(value, Sequence) and value and isinstance(value[0], (Tensor, np.ndarray)):
            return torch.stack([as_tensor(item, origin) for item in value])
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{origin}: a {type(value).__name__} does not become a tensor ({error}); expected arrays of one shape"
        ) from error


def images_and_labels(data: Any, origin: str) -> tuple[Tensor, Tensor]:
    """The images and labels of a container: (x, y) as a tuple or list, a TensorDataset, a DataLoader or any iterable of
    batches (x, y), a map-style data set of pairs.

    returns  what `as_images` and `as_labels` give
    Raises ShapeError for anything else.
    """
    if isinstance(data, TensorDataset) and len(data.tensors) >= 2:
        x, y = data.tensors[:2]
    elif isinstance(data, (tuple, list)) and len(data) == 2 and not _is_pair_of_pairs(data):
        x, y = data
    elif isinstance(data, TorchDataset) and hasattr(data, "__len__"):
        x, y = _joined([data[number] for number in range(len(data))], origin, samples=True)
    elif isinstance(data, (DataLoader, Iterable)) and not isinstance(data, (Tensor, np.ndarray, str, bytes, dict)):
        x, y = _joined(list(data), origin)
    else:
        raise ShapeError(f"{origin} got a {type(data).__name__}; expected (x, y), a TensorDataset or a DataLoader")
    images, labels = as_images(x, origin), as_labels(y, origin)
    if len(images) != len(labels):
        raise ShapeError(f"{origin} got {len(images)} images and {len(labels)} labels; expected one label per image")
    return images, labels


def _is_pair_of_pairs(data: Sequence[Any]) -> bool:
    """Whether a sequence of two is two batches (x, y) rather than x and y."""
    return all(isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Tensor) for item in data)


def _joined(pairs: list[Any], origin: str, samples: bool = False) -> tuple[Tensor, Tensor]:
    """All images and labels of `samples` (x, y), else of batches; these are samples too if a label is one number."""
    if not pairs or not all(isinstance(pair, (tuple, list)) and len(pair) >= 2 for pair in pairs):
        kind = type(pairs[0]).__name__ if pairs else "nothing"
        raise ShapeError(f"{origin} got {kind} where it goes through the data; expected pairs (images, labels)")
    images, labels = ([as_tensor(pair[part], origin) for pair in pairs] for part in (0, 1))
    join = torch.stack if samples or labels[0].dim() == 0 else torch.cat
    try:
        return join(images), join(labels)
    except RuntimeError as error:
        raise ShapeError(f"{origin}: {error}; expected images of one shape, each with a label of one kind") from error
