"""Functions in Python files of the user's own, `file.py:function`, apart from those of other files.

Two files may have neighbours of one name, `model.py` say.  Each folder has modules of its own: an import by a file, or
by a module beside it, finds those, whenever it is made; nobody else's import does.
"""

import builtins
import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from hosnn.errors import ConfigError

_lock = threading.RLock()
"""Held while the modules of one folder stand in sys.modules."""


def load_function(file: Path, name: str) -> Callable[[], Any]:
    """The function `name` of a Python file, which is run once to define it.

    Each file is a module of its own, whatever other files are called; modules beside it can be imported by it.
    Raises ConfigError if there is no such file or function, or if the file cannot be run.
    """
    function = getattr(load_file(file), name, None)
    if not callable(function):
        raise ConfigError(f"{file} has no function {name!r}; expected file.py:function")
    return function  # type: ignore[no-any-return]


def load_file(file: Path, named: str = "") -> ModuleType:
    """A Python file as a module.  Raises ConfigError naming the file if it is not there or cannot be run.

    named  what messages call it; empty: its path
    """
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
    folder = _folder(path.parent)
    try:
        with folder.importing():
            folder.own(module)
            if path.stem in folder.names:
                sys.modules[path.stem] = module  # for neighbours, and pickles, that import it
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[unique]
        folder.forget(path.stem)
        raise ConfigError(
            f"{named or file} raised {type(error).__name__}: {error}; correct the file, or import what it needs: it "
            "must load without arguments"
        ) from error
    return module


@contextmanager
def importing_beside(file: Path) -> Iterator[None]:
    """Inside, every import finds the modules beside `file`, as in a script of that folder; also unpickling does."""
    with _folder(file.resolve().parent).importing():
        yield


class _Folder:
    """The modules beside a user's files; as a finder of imports it finds these.

    names  of the modules in the folder, without those that Python has itself, that are loaded from there already, or,
           on a folder of sys.path, that everybody finds
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: frozenset[str] = frozenset()
        self._modules: dict[str, ModuleType] = {}
        self._builtins = vars(builtins) | {"__import__": self._import}
        self._importing = False

    def own(self, module: ModuleType) -> None:
        """Have the imports of a module, and of its functions at any time, find this folder's modules."""
        module.__dict__["__builtins__"] = self._builtins

    def forget(self, name: str) -> None:
        self._modules.pop(name, None)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Inside, sys.modules has this folder's modules, and nobody else's of their names."""
        with _lock:
            if self._importing:
                yield
                return
            self.names = self._importable()
            others = self._taken_out()
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self)
            self._importing = True
            try:
                yield
            finally:
                self._importing = False
                sys.meta_path.remove(self)
                self._modules = self._taken_out()
                sys.modules.update(others)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Part of Python's protocol of finders: how to load a module of this folder, None for any other."""
        if name.partition(".")[0] not in self.names:
            return None
        spec = PathFinder.find_spec(name, [str(self.path)] if path is None else path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(self, name, spec.loader.path)
        return spec

    def _importable(self) -> frozenset[str]:
        if self.path in {Path(entry).resolve() for entry in sys.path}:
            return frozenset()
        names = {file.stem for file in self.path.glob("*.py")}
        names |= {file.name.partition(".")[0] for ending in EXTENSION_SUFFIXES for file in self.path.glob(f"*{ending}")}
        for folder in {file.parent for file in self.path.glob("*/*.py")}:
            # A folder without __init__.py is a package where no other has its name.
            if (folder / "__init__.py").exists() or folder.name in self._modules or not _is_known(folder.name):
                names.add(folder.name)
        return frozenset(name for name in names - sys.stdlib_module_names if not self._is_shared(name))

    def _is_shared(self, name: str) -> bool:
        origin = getattr(sys.modules.get(name), "__file__", None)
        return name not in self._modules and origin is not None and self.path in Path(origin).resolve().parents

    def _taken_out(self) -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in self.names]
        return {name: sys.modules.pop(name) for name in names}

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` calls in this folder's modules."""
        if level == 0 and name.partition(".")[0] not in self.names:
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self.importing():
            return builtins.__import__(name, globals, locals, fromlist, level)


class _Loader(SourceFileLoader):
    def __init__(self, folder: _Folder, name: str, path: str) -> None:
        super().__init__(name, path)
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        self._folder.own(module)
        super().exec_module(module)


def _is_known(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ValueError:  # a module that has no spec
        return True


@cache
def _folder(path: Path) -> _Folder:
    return _Folder(path)
