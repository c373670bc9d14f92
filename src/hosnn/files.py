"""Reading files with a clear error, and writing them whole or not at all."""

import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hosnn.errors import ConfigError

T = TypeVar("T")


def read_json(path: Path, what: str, made: Callable[[Any], T], then: str = "") -> T:
    """What is made of a JSON file's content.  Raises ConfigError, which ends in `then`, if it is no `what`."""
    try:
        return made(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot read the {what} {path}: {error}{then}") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all.  Raises ConfigError if the place cannot be written."""
    write_text(path, json.dumps(content, separators=(",", ":")) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.  Raises ConfigError if the place cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.  Raises ConfigError if the place cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # others may write there at the same time
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says what is wrong
            temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error}; choose another place or free some space") from error
