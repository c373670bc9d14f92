"""Networks in and out of checkpoint folders: `hosnn.save` and `hosnn.load`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn

from hosnn import zoo
from hosnn.errors import CheckpointError
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.unwrapping import unwrapped
from hosnn.training import checkpoint
from hosnn.training.configuration import describe, is_readable
from hosnn.training.spiking_layers import describe_homeostasis, describe_rules

M = TypeVar("M", bound=nn.Module)

FILES = ("config.json", "model.safetensors")
"""What a network is read from."""

NEEDED = tuple(pattern for file in (*FILES, "current.json") for pattern in (file, f"*/{file}"))
"""Files of a Hub repository that are asked for."""


def save(model: nn.Module, path: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint folder: weights, k and signature or thresholds (safetensors), config.json and card.md.

    provenance  facts for config.json, JSON-ready; `name` is the card's heading
    A network of your own class is written too; read it with `load_into`.
    Of a compiled or parallel network the one inside is written, which an UnwrappedWarning says.
    Raises CheckpointError if the folder exists or cannot be written, or for a network whose state, or whose layers'
    gradient rules, the files cannot hold.
    """
    folder = Path(path)
    model = unwrapped(model, "save")
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; choose another folder, so that nothing is overwritten")
    blueprint = getattr(model, "blueprint", None)
    if blueprint is not None and not is_readable(blueprint):
        raise CheckpointError(
            f"save got a network of {blueprint!r}, which a checkpoint cannot hold; expected settings of hosnn's own "
            "types, with a gradient rule and a surrogate of hosnn; set `blueprint` to None and read it with load_into"
        )
    network = None if blueprint is None else describe(blueprint)
    config = checkpoint.config_of(network, describe_homeostasis(model), provenance or {}, describe_rules(model))
    checkpoint.save(model, folder, config)


def load(source: Path | str, generation: str = "best") -> SpikingNetwork:
    """The network in a run folder, a checkpoint folder, the package or a Hugging Face Hub repository, in eval mode.

    source  runs/NAME, a folder written by `save`, a name of `hosnn.zoo.names()`, or a
            Hub id such as "someone/their-snn"
    Raises CheckpointError if it is none of these, damaged, or of a network unknown here (use `load_into`).
    """
    return checkpoint.load(folder_of(source), generation).network


def load_into(network: M, source: Path | str, generation: str = "best") -> M:
    """Fill a freshly built network of your own from a checkpoint; its LIF layers become TA-LIF where it has k.

    Of a compiled or parallel network the one inside is filled and returned, which an UnwrappedWarning says.
    Raises CheckpointError if the tensors do not fit.
    """
    network = unwrapped(network, "load_into")

    def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
        return checkpoint.read_tensors(folder / "model.safetensors"), checkpoint.read_config(folder), folder

    checkpoint.load_weights(network, *checkpoint.read_generation(folder_of(source), generation, read))
    return network


def folder_of(source: Path | str) -> Path:
    """The folder meant by a path, by a name in `hosnn.zoo`, or by a Hub id, which is downloaded.

    Raises CheckpointError if it is none of them.
    """
    folder = Path(source)
    if folder.exists():
        return folder
    in_package = zoo.folder(str(source))
    if in_package is not None:
        return in_package
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "runs/")):
        raise CheckpointError(
            f"{source} does not exist; expected a run folder, a checkpoint folder, a Hub id or one of "
            f"{', '.join(zoo.names()) or 'no networks'} in the package"
        )
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(NEEDED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        cached = getattr(error, "snapshot_path", None)  # offline, and not every file that matches is in the cache
        if cached is not None and _is_complete(Path(cached)):
            return Path(cached)
        raise CheckpointError(
            f"{source} is no folder here, and the Hugging Face Hub does not have it or cannot be reached: {error}"
        ) from error


def _is_complete(folder: Path) -> bool:
    """Whether a network can be read from a folder."""
    try:
        checkpoint_folder = checkpoint.resolve(folder)
    except CheckpointError:
        return False
    return all((checkpoint_folder / file).exists() for file in FILES)
