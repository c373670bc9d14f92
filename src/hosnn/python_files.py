"""Functions in Python files of the user's own, `file.py:function`."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hosnn.errors import ConfigError


def load_function(file: Path, name: str) -> Callable[[], Any]:
    """The function `name` of a Python file, which is run once to define it.

    Each file is a module of its own, whatever other files are called; modules beside it can be imported by it.
    Raises ConfigError if there is no such file or function, or if the file cannot be run.
    """
    function = getattr(load_file(file), name, None)
    if not callable(function):
        raise ConfigError(f"{file} has no function {name!r}; expected file.py:function")
    return function  # type: ignore[no-any-return]


def load_file(file: Path) -> ModuleType:
    """A Python file as a module.  Raises ConfigError naming the file if it is not there or cannot be run."""
    path = file.resolve()
    unique = f"_hosnn_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    known = sys.modules.get(unique)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"there is no Python file {file}; expected file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    beside = str(path.parent)
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[unique]
        raise ConfigError(
            f"{file} raised {type(error).__name__} while it was loaded: {error}; mend it, or import what it needs"
        ) from error
    return module
