"""Checkpoints: folders of safetensors and JSON, written as generations behind one pointer.

    runs/NAME/checkpoints/
        current.json            {"last": "step-00000860", "best": "step-00000430"}, the one pointer, moved atomically
        step-00000860/          a generation, complete before the pointer names it
            model.safetensors   weights, k, signature
            config.json         network, homeostasis, provenance, versions
            card.md             the same for people
            training.safetensors, training.json   optimiser and position, for resuming

A reader sees the old state or the new one, never half of either, whenever the writer is killed.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hosnn.errors import CheckpointError, HosnnError
from hosnn.files import json_text, read_json, replacing, write_bytes
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import TALIF, hidden_neurons, neurons
from hosnn.provenance import versions
from hosnn.tensor_files import TensorFileError, read_header, to_bytes
from hosnn.tensor_files import read_tensors as read_tensor_file
from hosnn.training.configuration import network_from
from hosnn.training.spiking_layers import restore
from hosnn.training.stored import FORMAT, Config, Generations, checked, checked_position
from hosnn.training.weights import check_header, check_shapes, check_thresholds, check_types, tensors_to_save

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingState:
    """What a run needs besides the network to resume with the same bits."""

    tensors: Mapping[str, Tensor]  # of the optimiser, and the network's own weights beside averaged ones
    position: Mapping[str, Any]  # step, best accuracy, seconds, ..; see `loop`


class LoadedNetwork(NamedTuple):
    """A network with its config.json."""

    network: SpikingNetwork
    config: dict[str, Any]


class Pointer(NamedTuple):
    """Names of the two generations that a run keeps: the last one, and the one with the best validation accuracy."""

    last: str
    best: str


def save(network: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Write a checkpoint into a new folder, whole or not at all.  Raises CheckpointError if it cannot."""
    _write_folder(folder, lambda temporary: _write_model(network, temporary, config))


def save_generation(
    checkpoints: Path,
    network: nn.Module,
    config: Mapping[str, Any],
    state: TrainingState,
    best: str | None,
) -> Pointer:
    """Write the next generation, move the pointer to it, then remove generations it no longer names.

    best  the generation that stays best; None makes the new one best
    Raises CheckpointError if it cannot; the pointer then still names the old generations.
    """
    name, pointer_before = f"step-{state.position['step']:08d}", read_pointer(checkpoints)
    while pointer_before is not None and name in pointer_before:
        name += "-again"  # a generation that the pointer names is never touched

    def write(temporary: Path) -> None:
        _write_model(network, temporary, config)
        (temporary / "training.safetensors").write_bytes(to_bytes(state.tensors, {}))
        (temporary / "training.json").write_text(json_text(dict(state.position), indent=2), encoding="utf-8")

    _write_folder(checkpoints / name, write)
    pointer = Pointer(last=name, best=best or name)
    try:
        text = json_text(pointer._asdict(), indent=2)
        write_bytes(checkpoints / "current.json", text.encode(), durable=True, failure=_cannot_write)
    except CheckpointError:
        shutil.rmtree(checkpoints / name, ignore_errors=True)
        raise
    _remove_leftovers(checkpoints, pointer)
    return pointer


def read_pointer(checkpoints: Path) -> Pointer | None:
    """The pointer, None if nothing was ever saved.  Raises CheckpointError if it is damaged."""
    path = checkpoints / "current.json"
    if not path.exists():
        return None
    return Pointer(**_read_json(path, lambda content: checked(Generations, content)))


def load(path: Path, generation: str = "best") -> LoadedNetwork:
    """A network from a checkpoint folder, or from a run folder (its `best` or `last` generation).

    Raises CheckpointError if files are missing or truncated, or the weights belong to another architecture.
    """
    return read_generation(path, generation, _load)


def read_generation(path: Path, generation: str, read: Callable[[Path], T]) -> T:
    """`read` of the checkpoint folder meant by `path`, see `resolve`.

    A training that saves meanwhile removes generations; then the one is read that it went on to.
    """
    while True:
        folder = resolve(path, generation)
        try:
            return read(folder)
        except CheckpointError:
            if resolve(path, generation) == folder:
                raise


def _load(folder: Path) -> LoadedNetwork:
    config = read_config(folder)
    weights = folder / "model.safetensors"
    if config["network"] is None:
        raise CheckpointError(
            f"{folder} holds a network of a class of your own, which it does not describe; build one and fill it with "
            "hosnn.load_into(network, folder)"
        )
    try:
        with torch.device("meta"):  # costs no memory, however large a network a damaged config describes
            check_header(network_from(config["network"]), read_header(weights), folder)
        tensors = read_tensor_file(weights)  # before the network is built: a header may claim more than the file holds
        network = network_from(config["network"])
    except (OSError, TensorFileError) as error:
        raise _damaged_tensors(weights, error) from error
    except CheckpointError:
        raise
    except (HosnnError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{folder / 'config.json'} describes a network that is unknown here: {error}") from error
    load_weights(network, tensors, config, folder)
    return LoadedNetwork(network.eval(), config)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder.  Raises CheckpointError if it is damaged or of another format."""
    return _read_json(folder / "config.json", lambda content: checked(Config, content))


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: Path) -> None:
    """Load weights into a freshly built network, after giving it the checkpoint's kinds of layers, in place.

    Raises CheckpointError if the tensors are damaged or do not fit.
    """
    check_thresholds(tensors, hidden_neurons(network), source)
    restore(network, tensors, config, source)
    broken = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise CheckpointError(f"{source} holds NaN or infinite numbers in {broken}; train it again")
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(expected, saved, source)
    check_types(network, tensors, source)
    network.load_state_dict(dict(tensors))


def load_state(checkpoints: Path, name: str) -> TrainingState:
    """The training state of a generation.  Raises CheckpointError if it is damaged."""
    folder = checkpoints / name
    position = _read_json(folder / "training.json", lambda content: checked_position(content, name))
    return TrainingState(read_tensors(folder / "training.safetensors"), position)


def resolve(path: Path, generation: str = "best") -> Path:
    """The checkpoint folder meant by `path`.  Raises CheckpointError if there is none."""
    for checkpoints in (path / "checkpoints", path):
        pointer = read_pointer(checkpoints)
        if pointer is not None:
            return checkpoints / (pointer.best if generation == "best" else pointer.last)
    if (path / "config.json").exists():
        return path
    raise CheckpointError(
        f"{path} holds no checkpoint; expected a run folder (runs/NAME) or a checkpoint folder with config.json and "
        "model.safetensors"
    )


def config_of(
    network_description: Any,
    homeostasis: Any,
    provenance: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "format": FORMAT,
        "network": network_description,
        "homeostasis": homeostasis,
        **({"rules": dict(rules)} if rules else {}),
        "provenance": dict(provenance),
        "versions": versions(),
    }


def _write_model(network: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    tensors = tensors_to_save(network)
    (folder / "model.safetensors").write_bytes(to_bytes(tensors, {"format": FORMAT}))
    (folder / "config.json").write_text(json_text(dict(config), indent=2), encoding="utf-8")
    (folder / "card.md").write_text(_card(network, config), encoding="utf-8")


def _card(network: nn.Module, config: Mapping[str, Any]) -> str:
    provenance = config.get("provenance", {})
    layers = neurons(network)
    adaptive = sum(isinstance(layer, TALIF) for layer in layers.values())
    parameters = sum(p.numel() for p in network.parameters())
    lines = [
        f"# {provenance.get('name', 'hosnn network')}",
        "",
        f"- {parameters:,} parameters, {len(layers)} spiking layers, {adaptive} of them homeostatic (TA-LIF)",
        *(f"- {key}: {value}" for key, value in provenance.items() if isinstance(value, (str, int, float))),
        "",
        "Load it with `hosnn.load(folder)`: a function from pixels [B, C, H, W] in [0, 1] to logits [B, K].",
        "Accuracy under attack is whatever `hosnn evaluate` measures, not what this card says.",
        "",
    ]
    return "\n".join(lines)


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """A new folder that `write` fills, whole or not at all."""
    try:
        with replacing(folder, durable=True) as temporary:
            temporary.mkdir()
            write(temporary)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _remove_leftovers(checkpoints: Path, pointer: Pointer) -> None:
    """Remove generations that the pointer does not name, and unfinished files of killed processes."""
    for path in (*checkpoints.glob("step-*"), *checkpoints.glob(".*.tmp")):
        if path.is_dir() and path.name not in pointer:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot write the checkpoint {path}: {error}; the last good one is intact.  Free some space or choose another "
        "folder, then resume with --resume"
    )


def _read_json(path: Path, check: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    return read_json(path, "file", check, "; the checkpoint is damaged or incomplete", CheckpointError)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file.  Raises CheckpointError if it is damaged."""
    try:
        return read_tensor_file(path)
    except (OSError, ValueError) as error:
        raise _damaged_tensors(path, error) from error


def _damaged_tensors(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot read {path}: {error}; the file is truncated or no safetensors file, fetch or train it again"
    )
