"""What `hosnn evaluate` is pointed at: a checkpoint of ours, or a function of yours that returns any model."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from hosnn.cli.options import data_for, load_model
from hosnn.data import Dataset, load_dataset
from hosnn.errors import ConfigError
from hosnn.robustness.model import Model

IMPORTABLE = "mend the file, or import what it needs: it must load without arguments"


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    name      for the record
    data      what to evaluate it on
    folder    where its evaluations go unless told otherwise
    usual     whether the data set is the one the network was trained on
    """

    model: Model
    name: str
    data: Dataset
    folder: Path
    usual: bool


def candidate(source: Path, data: str | None, data_folder: Path | None) -> Candidate:
    """The model that `source` means: a folder or Hub id of ours, `file.py:function` or `module:function` of yours.

    Raises ConfigError (or CheckpointError) if there is no such thing, or if a model of yours comes without data.
    """
    text = str(source)
    if ":" in text and not source.exists():
        if data is None:
            raise ConfigError(f"{text} is a model of your own; say what to evaluate it on, e.g. --data fashion-mnist")
        name = _name(text)
        return Candidate(_own(text), name, load_dataset(data, data_folder), Path("runs") / name / "evaluations", True)
    loaded = load_model(source)
    provenance = loaded.config["provenance"]
    chosen = data_for(loaded.network, loaded.config, data, data_folder)
    return Candidate(
        loaded.network,
        str(provenance.get("name", source.name)),
        chosen,
        (source if source.exists() else Path("runs") / source.name) / "evaluations",
        chosen.name == provenance.get("dataset"),
    )


def transfer_sources(sources: tuple[Path, ...]) -> dict[str, nn.Module]:
    """Models to transfer from, by name."""
    found: dict[str, nn.Module] = {}
    for source in sources:
        text = str(source)
        if ":" in text and not source.exists():
            name, twin = _name(text), _own(text)
            if not isinstance(twin, nn.Module):
                raise ConfigError(f"{text} returned {type(twin).__name__}; to transfer from it, return an nn.Module")
        else:
            loaded = load_model(source)
            name, twin = str(loaded.config["provenance"].get("name", source.name)), loaded.network
        if name in found:
            raise ConfigError(f"--twins got {name!r} twice; give each model once")
        found[name] = twin.eval()
    return found


def _own(text: str) -> Model:
    """What a function without arguments, `file.py:function` or `module:function`, returns; or a network so called."""
    place, _, function_name = text.rpartition(":")
    module = _file(Path(place), text) if place.endswith(".py") else _module(place, text)
    function: Callable[[], object] | None = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"{text}: {place} has no function {function_name!r}; expected one that returns the model")
    with _blamed(text, "expected a function without arguments that returns the model"):
        model = function if isinstance(function, nn.Module) else function()
    if not callable(model):
        raise ConfigError(f"{text} returned {type(model).__name__}; expected an nn.Module, or a function of images")
    return model.eval() if isinstance(model, nn.Module) else model


@contextmanager
def _blamed(text: str, expected: str) -> Iterator[None]:
    """Whatever foreign code raises becomes a message that names it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{text} raised {type(error).__name__}: {error}; {expected}") from error


def _name(text: str) -> str:
    """`file.py:function` or `module:function` as a name that also does for a folder: file-function."""
    place, _, function_name = text.rpartition(":")
    return f"{Path(place).stem if place.endswith('.py') else place}-{function_name}"


def _file(path: Path, text: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ConfigError(f"there is no file {path}; expected file.py:function or module:function")
    sys.path.insert(0, str(path.resolve().parent))  # what stands beside it can be imported by it
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with _blamed(text, IMPORTABLE):
        spec.loader.exec_module(module)
    return module


def _module(name: str, text: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    with _blamed(text, IMPORTABLE):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            missing = error
    raise ConfigError(f"there is no module {name!r}; expected module:function, or file.py:function") from missing
