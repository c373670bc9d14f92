"""The model that a command names: a checkpoint of ours, or what a function of the user's own returns."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from hosnn.cli.options import dataset_for, load_model, writable_folder
from hosnn.data import Dataset, load_dataset
from hosnn.errors import ConfigError
from hosnn.files import read_bytes, write_text
from hosnn.nn.modes import set_evaluating
from hosnn.nn.unwrapping import unwrapped
from hosnn.python_files import importing_beside, load_file
from hosnn.robustness.model import Model
from hosnn.runtime import own_randomness

OWNER = "owner.txt"
"""File in a folder of runs/ that says which Hub repository, or which function of which file, its results are of."""

IMPORT_ADVICE = "correct the file, or import what it needs: it must load without arguments"


@dataclass(frozen=True)
class EvaluationTarget:
    """A model to evaluate, and the data to evaluate it on.

    name          as results record it
    folder        for results, unless the user names another (`results_folder`)
    owner         what a folder in runs/ belongs to that is named after the model; empty for a folder of ours
    default_data  whether `data` is what the model is evaluated on unless the user names another data set
    """

    model: Model
    name: str
    data: Dataset
    folder: Path
    default_data: bool
    owner: str = ""


def load_target(source: Path, data: str | None, data_folder: Path | None) -> EvaluationTarget:
    """The model that `source` names: a folder or Hub id of ours, or the user's `file.py:function`, `module:function`.

    Raises ConfigError (or CheckpointError) if there is no such model, or if a user's model comes without data.
    """
    text = str(source)
    if _names_a_function(source):
        if data is None:
            raise ConfigError(f"{text} is a model of your own; say what to evaluate it on, e.g. --data fashion-mnist")
        name = _function_name(text)
        dataset = load_dataset(data, data_folder)
        owner = _owner(text)
        folder = _own_folder(name, owner) / "evaluations"
        return EvaluationTarget(_model_of(text), name, dataset, folder, True, owner)
    loaded = load_model(source)
    provenance = loaded.config["provenance"]
    dataset = dataset_for(loaded.network, loaded.config, data, data_folder)
    return EvaluationTarget(
        loaded.network,
        str(provenance.get("name", source.name)),
        dataset,
        (source if source.exists() else _own_folder(source.name, text)) / "evaluations",
        dataset.name == provenance.get("dataset"),
        "" if source.exists() else text,
    )


def load_networks(sources: tuple[Path, ...]) -> dict[str, nn.Module]:
    """Networks by name, each named as for `load_target`.  Raises ConfigError for two of one name."""
    networks: dict[str, nn.Module] = {}
    for source in sources:
        text = str(source)
        if _names_a_function(source):
            name, model = _function_name(text), _model_of(text)
            if not isinstance(model, nn.Module):
                raise ConfigError(f"{text} returned {type(model).__name__}; expected an nn.Module")
        else:
            loaded = load_model(source)
            name, model = str(loaded.config["provenance"].get("name", source.name)), loaded.network
        if name in networks:
            raise ConfigError(f"two models are called {name!r} ({text} is the second); give each model once")
        set_evaluating(model)
        networks[name] = model
    return networks


def results_folder(target: EvaluationTarget, out: Path | None) -> Path:
    """Where results of a model go: `out`, or the model's own folder.  It can be written.  Raises ConfigError if not."""
    folder = writable_folder(out or target.folder)
    if out is None and target.owner:
        owner = folder.parent / OWNER
        if not owner.exists():
            write_text(owner, f"{target.owner}\n")
    return folder


def _own_folder(name: str, owner: str) -> Path:
    """The folder in runs/ of a model that lies elsewhere: called `name`, unless that is the folder of another model.

    owner  the Hub id, or file and function, that results in the folder belong to
    """
    folder = Path("runs") / name
    recorded = _owner_of(folder)
    if recorded == owner or not (recorded or (folder / "checkpoints").exists()):
        return folder
    return folder.with_name(f"{name}-{sha256(owner.encode()).hexdigest()[:8]}")


def _owner_of(folder: Path) -> str:
    """The model that a folder in runs/ belongs to; empty without a record, as in a run of ours."""
    try:
        return read_bytes(folder / OWNER).decode(errors="replace").strip()
    except OSError:
        return ""


def _owner(text: str) -> str:
    """`file.py:function` by the file's place below the working folder, so that both can be moved together."""
    location, _, function_name = text.rpartition(":")
    if not location.endswith(".py"):
        return text
    return f"{os.path.relpath(Path(location).resolve())}:{function_name}"


def _names_a_function(source: Path) -> bool:
    return ":" in str(source) and not source.exists()


def _function_name(text: str) -> str:
    """`file.py:function` or `module:function` as a name that can also be a folder's: file-function."""
    location, _, function_name = text.rpartition(":")
    return f"{Path(location).stem if location.endswith('.py') else location}-{function_name}"


def _model_of(text: str) -> Model:
    """What the function `file.py:function` or `module:function` returns, or the network of that name.

    Its file finds the modules beside it; the settings and random numbers of torch stay what they were.
    """
    location, _, function_name = text.rpartition(":")
    file = Path(location)
    with _settings_kept(), importing_beside(file) if file.suffix == ".py" else nullcontext():
        module = load_file(file, text) if file.suffix == ".py" else _import_module(location, text)
        function: Callable[[], object] | None = getattr(module, function_name, None)
        if not callable(function):
            raise ConfigError(
                f"{text}: {location} has no function {function_name!r}; expected one that returns the model"
            )
        with _named_errors(text, "expected a function without arguments that returns the model"):
            model = function if isinstance(function, nn.Module) else function()
    model = unwrapped(model, text)
    if not callable(model):
        raise ConfigError(f"{text} returned {type(model).__name__}; expected an nn.Module, or a function of images")
    if isinstance(model, nn.Module):
        set_evaluating(model)
    return model


def _import_module(name: str, text: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _named_errors(text, IMPORT_ADVICE):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            missing = error
    raise ConfigError(f"there is no module {name!r}; expected module:function, or file.py:function") from missing


@contextmanager
def _settings_kept() -> Iterator[None]:
    dtype, threads, gradient = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    try:
        with own_randomness():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradient)


@contextmanager
def _named_errors(text: str, advice: str) -> Iterator[None]:
    """Turn whatever the user's own code raises into a message that names it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{text} raised {type(error).__name__}: {error}; {advice}") from error
