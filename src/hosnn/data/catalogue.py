"""The data sets by name, for the command line and for recipes."""

from collections.abc import Callable
from pathlib import Path

from hosnn.data.cifar import CIFAR10, CIFAR10_JPEG75, CIFAR100, cifar10, cifar10_jpeg75, cifar100
from hosnn.data.dataset import Dataset
from hosnn.data.fashion_mnist_files import FASHION_MNIST, SAMPLE, SAMPLE_FOLDER, fashion_mnist, fashion_mnist_sample
from hosnn.data.sources import Source, SourceStatus, describe, find_in_folder
from hosnn.data.svhn_files import SVHN, svhn
from hosnn.errors import ConfigError, nearest


def _sample(folder: Path | None) -> Dataset:
    if folder is not None:
        raise ConfigError(
            f"{SAMPLE.name} is embedded and reads no folder, but got {folder}; leave the folder out, or load "
            f"{FASHION_MNIST.specification.name}"
        )
    return fashion_mnist_sample()


DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-sample": _sample,
    "cifar10": cifar10,
    "cifar10-jpeg75": cifar10_jpeg75,
    "cifar100": cifar100,
    "svhn": svhn,
}


def load_dataset(name: str, folder: Path | str | None = None) -> Dataset:
    """The data set called `name`, from `folder` if one is given, else from the first source that has it.

    Raises ConfigError for an unknown name, DataError if the data is absent or damaged.
    """
    if name not in DATASETS:
        raise ConfigError(
            f"there is no data set {name!r}; did you mean {nearest(name, DATASETS)!r}?  Known: {', '.join(DATASETS)}"
        )
    return DATASETS[name](None if folder is None else Path(folder))


def describe_sources() -> list[SourceStatus]:
    """The status of every source of every data set, without network access and without reading the data."""
    embedded = Source("embedded sample", lambda: find_in_folder(SAMPLE_FOLDER, FASHION_MNIST.layout))
    statuses = describe(SAMPLE.name, (embedded,))
    for published in (FASHION_MNIST, CIFAR10, CIFAR10_JPEG75, CIFAR100, SVHN):
        statuses += describe(published.specification.name, published.sources())
    return statuses
