"""What a value is, as text that renaming classes, functions and labels does not change.

Hashes of settings and experiments, which decide whether a stored result or network is the one asked for, are taken of
this text.  Classes and functions declare the name that stands for them in it (`identified`); dataclass fields may
declare another name than their own (`named`), be left out (`LEFT_OUT`), or be left out at their default (`ADDED`).
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from itertools import groupby
from operator import itemgetter
from types import FunctionType
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

LEFT_OUT: Mapping[str, Any] = {"identity": None}
"""Metadata of a field that decides no result, such as a label."""

ADDED: Mapping[str, Any] = {"added": True}
"""Metadata of a field that a class got after results of it were stored: left out at its default, which they had."""


def named(name: str) -> Mapping[str, Any]:
    """Metadata of a field that is called `name` in identities, whatever it is called in the code."""
    return {"identity": name}


def identified(name: str) -> Callable[[T], T]:
    """Declare the name that stands for a class or function in identities; a subclass declares its own."""

    def declare(target: T) -> T:
        target.identity_name = name  # type: ignore[attr-defined]
        return target

    return declare


def identity_name(target: Any) -> str:
    """The name a class or function declares for itself (not one it inherits), else its qualified name in the code."""
    declared = vars(target).get("identity_name")
    return declared if isinstance(declared, str) else str(target.__qualname__)


def identity_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the fields of a dataclass's instance that are part of its identity."""
    for part in fields(value):
        name, content = part.metadata.get("identity", part.name), getattr(value, part.name)
        if name is not None and part.repr and not _is_added_later(part, content):
            yield name, content


def identity_text(value: Any) -> str:
    """The value as text: `Name(field=value, ...)` for dataclasses, structure for networks, `repr` for the rest."""
    if isinstance(value, nn.Module):
        return _module_text(value)
    if is_dataclass(value) and not isinstance(value, type) and not _prints_itself(type(value)):
        content = ", ".join(f"{name}={identity_text(part)}" for name, part in identity_fields(value))
        return f"{identity_name(type(value))}({content})"
    if isinstance(value, Enum) and "identity_name" in vars(type(value)):
        # Members by their values, which files hold too, so that their names in the code may change.
        member = str(value.value).upper().replace("-", "_")
        return f"<{identity_name(type(value))}.{member}: {value.value!r}>"
    if isinstance(value, FunctionType):
        return f"<function {identity_name(value)}>"
    if type(value) is tuple:
        return f"({', '.join(map(identity_text, value))}{',' if len(value) == 1 else ''})"
    if type(value) is list:
        return f"[{', '.join(map(identity_text, value))}]"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def digest(value: Any) -> str:
    """SHA-256 of `identity_text(value)`."""
    return hashlib.sha256(identity_text(value).encode()).hexdigest()


def _prints_itself(kind: type) -> bool:
    """Whether a dataclass without a declared name has a `__repr__` of its own, which then says what it is."""
    is_generated = hasattr(kind.__repr__, "__wrapped__")
    return "identity_name" not in vars(kind) and not is_generated


def _module_text(module: nn.Module) -> str:
    """A network's structure without its weights, in the layout that `nn.Module` prints."""
    declared = vars(type(module)).get("identity_name")
    name = declared if isinstance(declared, str) else type(module).__name__
    extra = module.extra_repr()
    children = [
        (child_name, _module_text(child).replace("\n", "\n  ")) for child_name, child in module.named_children()
    ]
    if extra and "\n" not in extra and not children:
        return f"{name}({extra})"
    lines = [*(extra.split("\n") if extra else ()), *_child_lines(children, fold=isinstance(module, nn.ModuleList))]
    return f"{name}(" + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")


def _child_lines(children: list[tuple[str, str]], fold: bool) -> Iterator[str]:
    """One line per child; equal neighbours in one line with their number where `fold`."""
    for text, group in groupby(children, key=itemgetter(1)):
        names = [child_name for child_name, _ in group]
        if fold and len(names) > 1:
            yield f"({names[0]}-{names[-1]}): {len(names)} x {text}"
        else:
            yield from (f"({child_name}): {text}" for child_name in names)


def _is_added_later(part: Field[Any], value: Any) -> bool:
    return bool(part.metadata.get("added")) and bool(value == part.default)
