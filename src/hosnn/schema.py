"""Content of files as values: types that pydantic validates, and an error that names the first wrong field.

Whatever is read from JSON passes through `validated` before it is used.
"""

import reprlib
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from hosnn.errors import ConfigError

Integer = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
"""SHA-256 of content; empty where there is none."""

T = TypeVar("T")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 20
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


def adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's adapter of a type, which reads, writes and describes its values."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def validated(kind: type[T], content: Any) -> T:
    """The value of type `kind` that `content` describes.  Raises ConfigError naming the first wrong field."""
    try:
        value: T = adapter(kind).validate_python(content)
        return value
    except ValidationError as error:
        raise ConfigError(_first_fault(error)) from error


def _first_fault(error: ValidationError) -> str:
    """The first error: where, what was expected, what came; and the number of further ones."""
    faults = error.errors(include_url=False)
    first, more = faults[0], len(faults) - 1
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    where, others = f"at {place}: " if place else "", f"; {more} more such faults" if more else ""
    if first["type"] == "value_error":  # raised by our own code
        return f"{where}{first['ctx']['error']}{others}"
    if first["type"] == "missing":
        return f"it has no {place}{others}"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"it has {place}, which is unknown here{others}; it may come from a newer version"
    return f"{where}{first['msg']}, got {brief(first['input'])}{others}"


def brief(value: Any) -> str:
    """A value as text, cut where it is long."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
