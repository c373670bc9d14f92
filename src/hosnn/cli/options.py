"""Options that several verbs share, and the objects made from them."""

from pathlib import Path
from typing import Annotated

import tyro
from torch import nn

from hosnn.data import Dataset, load_dataset
from hosnn.data.own import OWN, own_data_exists
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError
from hosnn.nn.layers import SpikingNetwork
from hosnn.runtime import Hardware
from hosnn.terminal import SafeConsole
from hosnn.training import checkpoint
from hosnn.training.checkpoint import LoadedNetwork
from hosnn.training.models import folder_of

ModelArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
DataArgument = Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")]
Minutes = Annotated[float | None, tyro.conf.arg(metavar="MINUTES")]

console = SafeConsole()


def console_for(json_output: bool) -> SafeConsole:
    """Where progress and tables go: standard error if standard output is for JSON."""
    return SafeConsole(stderr=json_output)


def deadline_after(max_time: float | None) -> Deadline:
    """A deadline `max_time` minutes from now; None for no limit."""
    return Deadline(None if max_time is None else 60 * max_time)


def load_model(path: Path) -> LoadedNetwork:
    """A network and its config from a run folder, a checkpoint folder or a Hub id."""
    return checkpoint.load(folder_of(path))


def dataset_for(network: nn.Module, config: dict[str, object], name: str | None, folder: Path | None) -> Dataset:
    """The data set of that name or path, or the one the network was trained on.  Raises ConfigError if it does not fit.

    name  of a data set, or a path to one of the user's own (`hosnn.data.own`)
    """
    provenance = config.get("provenance")
    known: dict[str, object] = provenance if isinstance(provenance, dict) else {}
    dataset_name = name or known.get("dataset")
    if not isinstance(dataset_name, str):
        raise ConfigError("the checkpoint does not say what data it was trained on; name a data set with --data")
    if name is None and dataset_name.startswith(OWN):
        dataset_name = str(known.get("dataset_source"))
        if not own_data_exists(dataset_name):
            raise ConfigError(
                f"the network was trained on data of your own at {dataset_name}, which is not there; say where it lies "
                "with --data PATH"
            )
    data = load_dataset(dataset_name, folder)
    trained = known.get("dataset_sha256")
    if data.name.startswith(OWN) and data.name == known.get("dataset") and trained not in (None, data.sha256):
        raise ConfigError(
            f"{data.source} holds other images than when the network was trained on it, so training images may be "
            "among the test images; restore them, train again, or put other images into a folder of another name"
        )
    blueprint = network.blueprint if isinstance(network, SpikingNetwork) else None
    expected = getattr(blueprint, "image", data.image_shape)
    if tuple(expected) != data.image_shape:
        raise ConfigError(
            f"{dataset_name} has images {data.image_shape} but the network takes {tuple(expected)}; "
            "choose the data set it was made for"
        )
    classes = getattr(blueprint, "classes", data.num_classes)
    if data.num_classes > classes:
        raise ConfigError(
            f"{dataset_name} has {data.num_classes} classes but the network tells {classes} apart; choose the data set "
            "it was made for"
        )
    if isinstance(network, SpikingNetwork) and data.steps not in (None, network.steps):
        raise ConfigError(
            f"{dataset_name} has frames over {data.steps} time steps but the network runs {network.steps}; choose as "
            f"many bins, e.g. --data {data.name.partition(':')[0]}:steps={network.steps}"
        )
    return data


def check_measuring(hardware: Hardware) -> None:
    """Raises ConfigError for a precision in which nothing is measured."""
    if hardware.precision != "32-true":
        raise ConfigError(f"--precision got {hardware.precision!r}; trainings have a choice, results are of 32-true")


def writable_folder(path: Path) -> Path:
    """Create the folder and make sure it can be written, before hours of work.  Raises ConfigError if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".hosnn-write-test"
        probe.touch()
        probe.unlink(missing_ok=True)  # other ranks try the same
    except OSError as error:
        raise ConfigError(f"cannot write into {path}: {error}; choose another folder") from error
    return path
