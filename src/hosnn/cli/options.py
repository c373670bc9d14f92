"""Options that several verbs share, and the objects made from them."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from torch import nn

from hosnn.data import Dataset, load_dataset
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError
from hosnn.nn.layers import SpikingNetwork
from hosnn.training import checkpoint
from hosnn.training.checkpoint import LoadedNetwork
from hosnn.training.models import folder_of

ModelArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Minutes = Annotated[float | None, tyro.conf.arg(metavar="MINUTES")]

console = Console(soft_wrap=True)


def console_for(json_output: bool) -> Console:
    """Where progress and tables go: standard error if standard output is for JSON."""
    return Console(soft_wrap=True, stderr=json_output)


def deadline_after(max_time: float | None) -> Deadline:
    """A deadline `max_time` minutes from now; None for no limit."""
    return Deadline(None if max_time is None else 60 * max_time)


def load_model(path: Path) -> LoadedNetwork:
    """A network and its config from a run folder, a checkpoint folder or a Hub id."""
    return checkpoint.load(folder_of(path))


def dataset_for(network: nn.Module, config: dict[str, object], name: str | None, folder: Path | None) -> Dataset:
    """The data set of that name, or the one the network was trained on.  Raises ConfigError if it does not fit."""
    provenance = config.get("provenance")
    trained_on = provenance.get("dataset") if isinstance(provenance, dict) else None
    dataset_name = name or trained_on
    if not isinstance(dataset_name, str):
        raise ConfigError("the checkpoint does not say what data it was trained on; name a data set with --data")
    data = load_dataset(dataset_name, folder)
    blueprint = network.blueprint if isinstance(network, SpikingNetwork) else None
    expected = getattr(blueprint, "image", data.image_shape)
    if tuple(expected) != data.image_shape:
        raise ConfigError(
            f"{dataset_name} has images {data.image_shape} but the network takes {tuple(expected)}; "
            "choose the data set it was made for"
        )
    return data


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
