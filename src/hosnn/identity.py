"""Text that identifies a value of settings, for hashing; renaming classes, functions or labels does not change it.

Its hash decides whether a stored result or network is the one asked for.  Classes and functions declare the name that
stands for them in the text (`identified`); dataclass fields may declare another name than their own (`hashed_as`), be
left out (`NOT_HASHED`), or be left out while they have their default (`OMITTED_AT_DEFAULT`).
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

NOT_HASHED: Mapping[str, Any] = {"identity": None}
"""Metadata of a field that does not influence results, such as a label."""

OMITTED_AT_DEFAULT: Mapping[str, Any] = {"added": True}
"""Metadata of a field added later: at its default, which reproduces older results, hashes stay those of before."""


def hashed_as(name: str) -> Mapping[str, Any]:
    """Metadata of a field that is called `name` in hashed text, whatever it is called in the code."""
    return {"identity": name}


def identified(name: str) -> Callable[[T], T]:
    """Decorator: the name of a class or function in hashed text.  A subclass does not inherit it."""

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
    for field in fields(value):
        name, content = field.metadata.get("identity", field.name), getattr(value, field.name)
        if name is not None and field.repr and not _is_omitted(field, content):
            yield name, content


def identity_text(value: Any) -> str:
    """The value as text: `Name(field=value, ...)` for dataclasses, structure for networks, `repr` for the rest."""
    if isinstance(value, nn.Module):
        return _module_text(value)
    if is_dataclass(value) and not isinstance(value, type) and not _prints_itself(type(value)):
        arguments = ", ".join(f"{name}={identity_text(content)}" for name, content in identity_fields(value))
        return f"{identity_name(type(value))}({arguments})"
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


def _prints_itself(cls: type) -> bool:
    """Whether a dataclass without a declared name has a `__repr__` of its own, which then says what it is."""
    is_generated = hasattr(cls.__repr__, "__wrapped__")
    return "identity_name" not in vars(cls) and not is_generated


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
    """One line per child (name, text); with `fold`, one line for equal neighbours and their number."""
    for text, group in groupby(children, key=itemgetter(1)):
        names = [child_name for child_name, _ in group]
        if fold and len(names) > 1:
            yield f"({names[0]}-{names[-1]}): {len(names)} x {text}"
        else:
            yield from (f"({child_name}): {text}" for child_name in names)


def _is_omitted(field: Field[Any], value: Any) -> bool:
    return bool(field.metadata.get("added")) and bool(value == field.default)
