"""The data sets by name, for the command line and for recipes."""

from collections.abc import Callable
from pathlib import Path

from hosnn.data.cifar import CIFAR10, CIFAR100
from hosnn.data.dataset import Dataset
from hosnn.data.events import Binning
from hosnn.data.fashion_mnist_files import FASHION_MNIST, SAMPLE, SAMPLE_FOLDER, fashion_mnist_sample
from hosnn.data.nmnist_files import publication as nmnist_publication
from hosnn.data.own import OWN, is_own, load_own
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import Source, SourceStatus, describe, find_in_folder
from hosnn.data.svhn_files import SVHN, SVHN_PREFIX
from hosnn.errors import ConfigError, nearest

IMAGES: dict[str, PublishedDataset] = {
    publication.specification.name: publication for publication in (FASHION_MNIST, CIFAR10, CIFAR100, SVHN, SVHN_PREFIX)
}
EVENTS: dict[str, Callable[[Binning], PublishedDataset]] = {
    "nmnist": nmnist_publication,
    "nmnist-small": lambda binning: nmnist_publication(binning, small=True),
}
"""Recordings of events; how they become frames may follow the name, as in "nmnist:steps=5"."""

NAMES = (SAMPLE.name, *IMAGES, *EVENTS)


def load_dataset(name: str, folder: Path | str | None = None) -> Dataset:
    """The data set called `name`, from `folder` if one is given, else from the first source that has it; or one of the
    user's own, by its path or `file.py:function` (`own.load_own`), recognised if it is a published one.

    Raises ConfigError for an unknown name, DataError if the data is absent or damaged.
    """
    place = None if folder is None else Path(folder)
    family, _, settings = name.partition(":")
    if family in EVENTS:
        return EVENTS[family](Binning.parse(settings)).load(place)
    if name in IMAGES:
        return IMAGES[name].load(place)
    if name == SAMPLE.name:
        if place is not None:
            raise ConfigError(f"{name} is embedded and reads no folder, but {folder} was given; leave it out")
        return fashion_mnist_sample()
    if name.startswith(OWN):
        raise ConfigError(f"{name} is a data set of your own; say where it lies: --data PATH")
    if is_own(name):
        if place is not None:
            raise ConfigError(
                f"--data {name} says where the data lies, so --data-folder {folder} cannot; leave one out"
            )
        return load_own(name, (publication.specification for publication in IMAGES.values()))
    raise ConfigError(
        f"there is no data set {name!r}; did you mean {nearest(name, NAMES)!r}?  Known: {', '.join(NAMES)}; or give "
        "a path to data of your own"
    )


def load_local(name: str, folder: Path | None = None) -> Dataset:
    """The data set called `name`, one of `NAMES`, without network access.  Raises DataError if it is not here.

    folder  `PublishedDataset.sources`
    """
    if name == SAMPLE.name:
        return fashion_mnist_sample()
    return (IMAGES[name] if name in IMAGES else EVENTS[name](Binning())).load_local(folder)


def describe_sources(folder: Path | None = None) -> list[SourceStatus]:
    """For each data set, where it is found on this machine; quick, no network, contents not verified.

    folder  `PublishedDataset.sources`
    """
    embedded = Source("embedded sample", lambda: find_in_folder(SAMPLE_FOLDER, FASHION_MNIST.layout))
    statuses = describe(SAMPLE.name, (embedded,))
    for publication in (*IMAGES.values(), *(make(Binning()) for make in EVENTS.values())):
        statuses += describe(publication.specification.name, publication.sources(folder))
    return statuses
