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

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from hosnn.errors import CheckpointError, HosnnError
from hosnn.files import json_text, replacing, write_bytes
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import TALIF, neurons
from hosnn.provenance import versions
from hosnn.training.configuration import network_from
from hosnn.training.spiking_layers import restore

FORMAT = "hosnn-checkpoint-1"


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
        (temporary / "training.safetensors").write_bytes(serialise(dict(state.tensors)))
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
    content = _read_json(path)
    last, best = content.get("last"), content.get("best")
    if not (isinstance(last, str) and isinstance(best, str)):
        raise CheckpointError(f"{path} is damaged: {content}; expected the names of two generations, last and best")
    return Pointer(last, best)


def load(path: Path, generation: str = "best") -> LoadedNetwork:
    """A network from a checkpoint folder, or from a run folder (its `best` or `last` generation).

    Raises CheckpointError if files are missing or truncated, or the weights belong to another architecture.
    """
    folder = resolve(path, generation)
    config = read_config(folder)
    try:
        network = network_from(config["network"])
    except (HosnnError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} describes a network that is unknown here: {error}") from error
    load_weights(network, read_tensors(folder / "model.safetensors"), config, folder)
    return LoadedNetwork(network.eval(), config)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder.  Raises CheckpointError if it is damaged or of another format."""
    config = _read_json(folder / "config.json")
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder / 'config.json'} has format {config.get('format')!r}; expected {FORMAT!r}")
    if not isinstance(config.get("provenance"), dict) or "network" not in config:
        raise CheckpointError(f"{folder / 'config.json'} lacks its network or provenance; the checkpoint is damaged")
    return config


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: Path) -> None:
    """Load weights into a freshly built network, after giving it the checkpoint's kinds of layers, in place.

    Raises CheckpointError if the tensors are damaged or do not fit.
    """
    restore(network, tensors, config, source)
    broken = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise CheckpointError(f"{source} holds NaN or infinite numbers in {broken}; train it again")
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != saved:
        different = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
        first = different[0]
        raise CheckpointError(
            f"{source} holds another architecture than its network: {len(different)} tensors differ, first {first!r} "
            f"with shape {saved.get(first, 'missing')} where {expected.get(first, 'nothing')} was expected; load it "
            "with the network it was saved from"
        )
    precisions = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(precisions) == 1:
        network.to(precisions.pop())
    network.load_state_dict(dict(tensors))


def load_state(checkpoints: Path, name: str) -> TrainingState:
    """The training state of a generation.  Raises CheckpointError if it is damaged."""
    folder = checkpoints / name
    return TrainingState(read_tensors(folder / "training.safetensors"), _read_json(folder / "training.json"))


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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(serialise(tensors, metadata={"format": FORMAT}))
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; the checkpoint is damaged or incomplete") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected a JSON object")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file.  Raises CheckpointError if it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; the file is truncated or no safetensors file, fetch or train it again"
        ) from error
