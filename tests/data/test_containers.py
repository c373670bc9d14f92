"""Containers of images and labels: taken with equal values, or ShapeError naming what came and what was expected."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from hosnn.data.containers import as_images, as_labels, images_and_labels
from hosnn.errors import ShapeError

X = torch.linspace(0, 1, 5 * 3 * 6 * 7).reshape(5, 3, 6, 7)
Y = torch.tensor([2, 0, 1, 2, 0])
ONE_HOT = torch.eye(3)[Y]


class Pairs(TorchDataset[tuple[Tensor, int]]):
    """A map-style data set whose labels are plain numbers, as torchvision's are."""

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return X[number], int(Y[number])


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X, Y, strict=True))


def batches(size: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(X, size), torch.split(Y, size), strict=True)


def read_only(values: Tensor) -> np.ndarray[Any, Any]:
    array = values.numpy().copy()
    array.flags.writeable = False
    return array


TAKEN: dict[str, Any] = {
    "tuple": (X, Y),
    "list": [X, Y],
    "numpy": (X.numpy(), Y.numpy()),
    "numpy, read-only": (read_only(X), read_only(Y)),
    "numpy, other byte order": (X.numpy().astype(">f4"), Y.numpy().astype(">i4")),
    "numpy, reversed twice": (X.numpy()[::-1].copy()[::-1], Y.numpy()[::-1].copy()[::-1]),
    "lists of tensors": (list(X), list(Y)),
    "lists of arrays": (list(X.numpy()), list(Y.numpy())),
    "nested lists": (X.tolist(), Y.tolist()),
    "images with requires_grad": (X.clone().requires_grad_(), Y),
    "images that are a result": (X.clone().requires_grad_() * 1, Y),
    "double precision": (X.double(), Y),
    "channels last": (X.permute(0, 2, 3, 1), Y),
    "not contiguous": (X.transpose(2, 3).contiguous().transpose(2, 3), Y),
    "int32 labels": (X, Y.int()),
    "uint8 labels": (X, Y.byte()),
    "uint16 labels": (X, Y.numpy().astype(np.uint16)),
    "uint32 labels": (X, Y.numpy().astype(np.uint32)),
    "float labels": (X, Y.float()),
    "labels with requires_grad": (X, Y.float().requires_grad_()),
    "labels [N, 1]": (X, Y[:, None]),
    "one-hot, integers": (X, ONE_HOT.long()),
    "one-hot, floats": (X, ONE_HOT),
    "one-hot, bytes": (X, ONE_HOT.byte()),
    "one-hot, booleans": (X, ONE_HOT.bool()),
    "TensorDataset": TensorDataset(X, Y),
    "TensorDataset with more": TensorDataset(X, Y, torch.arange(5)),
    "DataLoader": DataLoader(TensorDataset(X, Y), batch_size=2),
    "DataLoader of pairs": DataLoader(Pairs(), batch_size=3),
    "DataLoader of single samples": DataLoader(Pairs(), batch_size=None),
    "map-style data set": Pairs(),
    "map-style data set, one-hot": Subset(TensorDataset(X, ONE_HOT), range(5)),
    "part of a data set": Subset(Pairs(), range(5)),
    "iterable data set": Stream(),
    "list of batches": list(batches()),
    "two batches": list(batches(3)),
    "two batches of a loader": list(DataLoader(TensorDataset(X, Y), batch_size=3)),
    "one batch in a list": [(X, Y)],
    "list of samples": list(zip(X, Y.tolist(), strict=True)),
    "generator of batches": batches(),
    "generator of samples": ((x, int(y)) for x, y in zip(X, Y, strict=True)),
    "zip of samples as arrays": zip(X.numpy(), Y.numpy(), strict=True),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_containers_are_taken_with_equal_values(data: Any) -> None:
    x, y = images_and_labels(data, "evaluate")
    assert (x.dtype, y.dtype, x.requires_grad) == (torch.float32, torch.int64, False)
    torch.testing.assert_close(x, X, rtol=0, atol=0)
    assert torch.equal(y, Y)


BYTES = (X * 255).round().byte()
IMAGES: dict[str, tuple[Any, Tensor]] = {
    "bytes": (BYTES, BYTES),
    "bytes, channels last": (BYTES.permute(0, 2, 3, 1).numpy(), BYTES),
    "int64 in 0..255": (BYTES.long(), BYTES),
    "uint16 in 0..255": (BYTES.numpy().astype(np.uint16), BYTES),
    "booleans": (BYTES > 127, (BYTES > 127).byte() * 255),
    "grey without channels": (BYTES[:, 0], BYTES[:, :1]),
    "double precision": (X.double(), X),
    "frames": (BYTES[:, None].repeat(1, 4, 1, 1, 1), BYTES[:, None].repeat(1, 4, 1, 1, 1)),
}


@pytest.mark.parametrize(("value", "expected"), IMAGES.values(), ids=IMAGES)
def test_images_of_any_type_become_bytes_or_floats(value: Any, expected: Tensor) -> None:
    images = as_images(value, "x")
    assert images.dtype == expected.dtype and images.is_contiguous()
    assert torch.equal(images, expected)


def spoilt(value: float) -> Tensor:
    x = X.clone()
    x[1, 0, 2, 2] = value
    return x


BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "0..255 as floats": (X * 255, r"in \[0, 255\], expected \[0, 1\]; .*divide by 255"),
    "half precision": (X.half(), r"torch\.float16 .*expected float32 or float64"),
    "normalised": ((X - 0.5) / 0.25, "make normalisation the model's first layer"),
    "NaN": (spoilt(float("nan")), "NaN or infinite pixels"),
    "infinite": (spoilt(float("inf")), "NaN or infinite pixels"),
    "whole numbers beyond 255": (BYTES.long() * 256, r"torch\.int64 in 0\.\.65280; expected 0\.\.255"),
    "16 bit": (BYTES.numpy().astype(np.uint16) * 256, r"in 0\.\.65280; expected 0\.\.255"),
    "negative": (-BYTES.long(), r"in -255\.\.0; expected 0\.\.255"),
    "complex": (X * 1j, "complex"),
    "one flat row an image": (X.flatten(1), r"\[5, 126\]; expected \[N, C, H, W\]"),
    "empty": (X[:0], r"\[0, 3, 6, 7\]; expected .*at least one image"),
    "an empty list": ([], "expected .*at least one image"),
    "images of several sizes": ([X[0], X[1, :, :4]], "expected arrays of one shape"),
    "objects": (np.array([None] * 5), "does not become a tensor"),
    "text": ("pictures", "a str does not become a tensor"),
    "nothing": (None, "a NoneType does not become a tensor"),
}


@pytest.mark.parametrize(("value", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_images_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=rf"^evaluate: .*{message}"):
        as_images(value, "evaluate")


BAD_LABELS: dict[str, tuple[Any, str]] = {
    "soft": (torch.full((5, 3), 1 / 3), "soft labels have no class"),
    "several classes an image": (torch.ones(5, 3).long(), "one-hot rows with a single 1"),
    "rows without a class": (torch.zeros(5, 3), "one-hot rows with a single 1"),
    "halves": (Y + 0.5, "whole class numbers"),
    "NaN": (torch.full((5,), float("nan")), "whole class numbers"),
    "booleans": (Y > 0, r"torch\.bool \[5\]; expected whole class numbers"),
    "complex": (Y * 1j, "whole class numbers"),
    "negative": (Y - 1, r"in -1\.\.1; expected 0\.\.2"),
    "beyond the classes": (Y + 1, r"in 1\.\.3; expected 0\.\.2"),
    "one number": (torch.tensor(3), "whole class numbers"),
    "names": (["cat", "dog", "cat", "dog", "cat"], "does not become a tensor"),
    "images": (X, "whole class numbers"),
}


@pytest.mark.parametrize(("value", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_what_is_no_labels_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=rf"^evaluate: .*{message}"):
        as_labels(value, "evaluate", classes=3)


BAD_CONTAINERS: dict[str, tuple[Any, str]] = {
    "a string": ("cifar10", r"got a str; expected \(x, y\), a TensorDataset or a DataLoader"),
    "a dict": ({"x": X, "y": Y}, r"got a dict; expected \(x, y\)"),
    "nothing": (None, "got a NoneType; expected"),
    "images alone": (X, "got a Tensor; expected"),
    "an array alone": (X.numpy(), "got a ndarray; expected"),
    "images without labels": (TensorDataset(X), r"expected pairs \(images, labels\)"),
    "a loader without labels": (DataLoader(X), r"expected pairs \(images, labels\)"),  # type: ignore[arg-type]
    "batches as dicts": ([{"x": X, "y": Y}] * 3, r"got dict .*expected pairs"),
    "an empty loader": (DataLoader(TensorDataset(X[:0], Y[:0])), r"got nothing .*expected pairs"),
    "an empty list": ([], r"got nothing .*expected pairs"),
    "no images": ((X[:0], Y[:0]), "at least one image"),
    "fewer labels": ((X, Y[:4]), "got 5 images and 4 labels; expected one label per image"),
    "labels first": ((Y, X), r"images are \[5\]"),
    "samples of several sizes": ([(X[0], 0), (X[1, :, :4], 1), (X[2], 2)], "one shape"),
    "batches of several sizes": ([(X, Y), (X[..., :4], Y), (X, Y)], "one shape"),
    "batches of images and of frames": ([(X, Y), (X[:, None], Y), (X, Y)], "one shape"),
}


@pytest.mark.parametrize(("data", "message"), BAD_CONTAINERS.values(), ids=BAD_CONTAINERS)
def test_other_containers_are_refused(data: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=rf"^evaluate.*{message}"):
        images_and_labels(data, "evaluate")
