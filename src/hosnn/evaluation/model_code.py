"""What a model computes besides its weights and layers: the code of its classes that are neither torch's nor ours."""

import hashlib
from collections.abc import Iterator
from inspect import unwrap
from types import CodeType, FunctionType
from typing import Any

from torch import nn

OURS = ("torch", "hosnn")
"""Packages whose version stands for their code (`versions`)."""

PLAIN = (int, float, complex, str, bytes, bool, type(None))


def code_digest(model: nn.Module) -> str:
    """SHA-256 of the methods of a model's own classes, and of the functions and numbers of their files that they use.

    Comments, names of files and line numbers do not change it.  Empty for a model of torch's and our layers alone.
    """
    classes = {cls for module in model.modules() for cls in type(module).__mro__ if _is_foreign(cls.__module__)}
    if not classes:
        return ""
    digest = hashlib.sha256()
    seen: set[FunctionType] = set()
    for cls in sorted(classes, key=lambda it: (it.__module__, it.__qualname__)):
        digest.update(cls.__qualname__.encode())
        for name, value in sorted(vars(cls).items()):
            if not name.startswith("__") or name in ("__init__", "__call__"):
                digest.update("".join((name, *_texts(value, seen))).encode())
    return digest.hexdigest()


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] not in (*OURS, "builtins", "typing", "abc")


def _texts(value: Any, seen: set[FunctionType]) -> Iterator[str]:
    """A method, function, number or text as text; nothing for anything else."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, PLAIN):
        yield repr(value)
        return
    function = unwrap(value) if isinstance(value, FunctionType) else value
    if not isinstance(function, FunctionType) or function in seen or not _is_foreign(function.__module__):
        return
    seen.add(function)
    yield repr(function.__defaults__) if _is_plain(function.__defaults__) else ""
    for code in _with_inner(function.__code__):
        yield f"{code.co_code!r}{[repr(it) for it in code.co_consts if _is_plain(it)]}{code.co_names}"
        for name in code.co_names:
            if name in function.__globals__:
                yield from (name, *_texts(function.__globals__[name], seen))


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of those that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))
