"""One gate: evaluate and calibrate take the containers people have, and refuse what is no images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from hosnn.data import Split
from hosnn.errors import ConfigError, ShapeError
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.layers import SpikingNetwork
from hosnn.protocols.protocol import AttackSpec, Protocol
from hosnn.results.paired_test import check_pairable
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import fgsm
from hosnn.robustness.threats import Threat
from hosnn.signature import Signature, calibrate
from tests.evaluation.synthetic import Linear
from tests.nn.test_networks import images as pictures
from tests.nn.test_networks import lif_network

THREAT = Threat(Linf(0.05))
FGSM = Protocol(
    name="test",
    description="made for a test",
    threat=THREAT,
    attacks=(AttackSpec(name="FGSM", attack=fgsm(THREAT), threat=THREAT),),
    samples=None,
)
WEIGHT = torch.tensor([1.0, -2.0, 0.5, 0.0])
BYTES = torch.randint(60, 200, (60, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
X = BYTES / 255
Y = (X.flatten(1) @ WEIGHT > -0.3).long()


def model() -> Linear:
    return Linear(WEIGHT, 0.3)


CONTAINERS: dict[str, Any] = {
    "list": [X, Y],
    "numpy": (X.numpy(), Y.numpy().astype(np.int32)),
    "bytes": (BYTES, Y.byte()),
    "channels last": (BYTES.permute(0, 2, 3, 1).repeat(1, 1, 1, 1), Y),
    "requires_grad": (X.clone().requires_grad_(), Y.float().requires_grad_()),
    "one-hot": (X, torch.eye(2)[Y]),
    "TensorDataset": TensorDataset(X, Y),
    "DataLoader": DataLoader(TensorDataset(X, Y), batch_size=16),
    "split": Split.in_order(BYTES, Y),
}


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_same_result(data: Any) -> None:
    plain, other = evaluate(model(), (X, Y), FGSM), evaluate(model(), data, FGSM)
    assert other.rows[0].predictions == plain.rows[0].predictions
    assert (other.clean, other.labels, other.index) == (plain.clean, plain.labels, plain.index)
    assert other.dataset == "images"


def test_fewer_images_than_given_are_a_balanced_choice_and_the_result_says_so() -> None:
    labels = torch.arange(60) // 30  # the first 20 would all be of one class
    choice = Split.in_order(BYTES, labels).subset(20)
    for protocol, samples in ((replace(FGSM, samples=20), None), (FGSM, 20)):
        result = evaluate(model(), (X, labels), protocol, samples=samples)
        assert sorted(result.index) == choice.index.tolist()
        assert torch.tensor(result.labels).bincount().tolist() == [10, 10]
        assert result.dataset == "images, a class-balanced 20 of 60"
        assert result.samples == 20


@pytest.mark.parametrize(
    "data", [(X, Y), TensorDataset(X, Y), Split.in_order(BYTES, Y)], ids=["tuple", "data set", "split"]
)
def test_more_images_than_there_are_is_an_error(data: Any) -> None:
    for samples in (61, 0, -1):
        with pytest.raises(ConfigError, match=rf"samples = {samples}.* 60 images"):
            evaluate(model(), data, FGSM, samples=samples)
    assert evaluate(model(), data, replace(FGSM, samples=61)).samples == 60  # a protocol's number is at most that many


def spoilt() -> Tensor:
    x = X.clone()
    x[1, 0, 1, 1] = float("nan")
    return x


NO_IMAGES: dict[str, tuple[Tensor, str]] = {
    "0..255": (X * 255, r"in \[\d+, \d+\], expected \[0, 1\]; .*divide by 255"),
    "normalised": ((X - 0.5) / 0.25, "make normalisation the model's first layer"),
    "NaN": (spoilt(), "NaN or infinite pixels"),
}


@pytest.mark.parametrize(("x", "message"), NO_IMAGES.values(), ids=NO_IMAGES)
@pytest.mark.parametrize("container", [tuple, TensorDataset], ids=["tuple", "data set"])
def test_evaluate_refuses_what_is_no_images(x: Tensor, message: str, container: Callable[..., Any]) -> None:
    data = (x, Y) if container is tuple else container(x, Y)
    with pytest.raises(ShapeError, match=rf"^evaluate: images are torch\.float32 \[60, 1, 2, 2\].*{message}"):
        evaluate(model(), data, FGSM)


def test_evaluate_refuses_a_split_that_is_no_images() -> None:
    with pytest.raises(ShapeError, match="divide by 255"):
        evaluate(model(), Split.in_order(X * 255, Y), FGSM)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:9]), "60 images and 9 labels"),
        ((X[:0], Y[:0]), "at least one image"),
        ((X, Y + 1), r"the model has 2 classes but the labels go up to 2"),
        ((X, Y - 1), r"in -1\.\.0; expected 0"),
        ((X, X.softmax(-1).flatten(1)), "soft labels have no class"),
        ("cifar10", "got a str; expected"),
        ({"image": X, "label": Y}, "got a dict; expected"),
    ],
)
def test_evaluate_refuses_other_containers(data: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evaluate(model(), data, FGSM)


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    return lif_network()


def with_nan() -> Tensor:
    x = pictures()
    x[2, 0, 3, 3] = float("nan")
    return x


NOT_TO_CALIBRATE_ON: dict[str, tuple[Any, str]] = {
    "0..255": ([pictures() * 255], r"calibrate: images are torch\.float32 \[6, 1, 28, 28\] in \[.*divide by 255"),
    "bytes": ([(pictures() * 255).byte()], r"calibrate: images are torch\.uint8 .*x\.float\(\) / 255"),
    "normalised": ([(pictures() - 0.5) / 0.25], "calibrate: .*make normalisation the model's first layer"),
    "NaN": ([with_nan()], "calibrate: .*NaN or infinite"),
    "NaN in a later batch": ([pictures(), with_nan()], "calibrate: .*NaN or infinite"),
    "wrong channels": ([pictures().repeat(1, 3, 1, 1)], r"\[6, 3, 28, 28\]"),
    "wrong size": ([pictures()[..., :5]], r"\[6, 1, 28, 5\]"),
    "no batch axis": (pictures(), r"\(1, 28, 28\); expected images \[B, C, H, W\]"),
    "a batch as a dict": ([{"image": pictures()}], "calibrate got dict"),
    "a batch of text": (["cifar10"], "calibrate got str"),
    "labels and images swapped": ([(torch.zeros(6).long(), pictures())], r"torch\.int64 \[6\]"),
}


@pytest.mark.parametrize(("loader", "message"), NOT_TO_CALIBRATE_ON.values(), ids=NOT_TO_CALIBRATE_ON)
def test_calibrate_refuses_what_is_no_images(network: SpikingNetwork, loader: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        calibrate(network, loader)


def test_calibrate_takes_a_loader_of_images_and_labels(network: SpikingNetwork) -> None:
    x = pictures()
    plain = calibrate(network, [x])
    loaders: tuple[Any, ...] = (
        DataLoader(TensorDataset(x, torch.zeros(6)), batch_size=6),
        [[x, torch.zeros(6)]],
        [x.clone().requires_grad_()],
        [x.numpy()],
        [(x.numpy(), np.zeros(6))],
    )
    for loader in loaders:
        other: Signature = calibrate(network, loader)
        for name, layer in plain.layers.items():
            torch.testing.assert_close(other.layers[name].mean, layer.mean, rtol=0, atol=0)


def test_containers_of_other_images_are_not_paired() -> None:
    first, other = (evaluate(model(), (x, Y), FGSM) for x in (X, X.flip(2)))
    with pytest.raises(ConfigError, match="different data sets"):
        check_pairable(first, other)
    check_pairable(first, evaluate(model(), (X.clone(), Y), FGSM))


def test_images_sorted_by_class_are_mixed_so_that_the_first_are_of_all_classes() -> None:
    labels = torch.arange(10).repeat_interleave(30)
    x = (0.04 + 0.1 * labels).view(-1, 1, 1, 1).repeat(1, 1, 2, 2).round(decimals=2)
    split = Split.in_order(x, labels)
    for count in (None, 200):
        mixed = split.for_evaluation(count)
        assert len(set(mixed.labels[:64].tolist())) == 10 and len(mixed) == (count or 300)
        assert torch.equal(labels[mixed.index], mixed.labels)
    shuffled = split.subset(torch.randperm(300, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(shuffled.for_evaluation().index, shuffled.index)
    assert torch.equal(shuffled.for_evaluation(50).index, shuffled.subset(50).index)
    result = evaluate(lambda x: 10 * x.flatten(1).mean(1, keepdim=True) - torch.arange(10) ** 2 / 20, (x, labels), FGSM)
    assert len(set(result.labels[:64])) == 10
