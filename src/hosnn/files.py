"""Files: read with an error that says what is wrong, written whole or not at all."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hosnn.errors import ConfigError, HosnnError

T = TypeVar("T")


def cannot_write(path: Path, error: Exception) -> ConfigError:
    """The error for a file that cannot be written, unless the caller has a more specific one."""
    return ConfigError(f"cannot write {path}: {error}; choose another place or free some space")


def read_json(path: Path, kind: str, parse: Callable[[Any], T], advice: str = "") -> T:
    """`parse` of a JSON file's content.

    kind    what the file should contain, e.g. "evaluation", for the error's message
    advice  the end of that message
    Raises ConfigError if the file cannot be read, is no JSON, or `parse` raises.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot read the {kind} {path}: {error}{advice}") from error


def write_json(path: Path, content: Any, *, indent: int | None = None, durable: bool = False) -> None:
    """Write a JSON file, whole or not at all; on one line without `indent`.  Raises as `write_bytes`."""
    write_text(path, json_text(content, indent), durable=durable)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file in UTF-8, whole or not at all.  Raises as `write_bytes`."""
    write_bytes(path, text.encode(), durable=durable)


def write_bytes(
    path: Path,
    content: bytes,
    *,
    durable: bool = False,
    failure: Callable[[Path, Exception], HosnnError] = cannot_write,
) -> None:
    """Write a file, whole or not at all.

    durable  wait until the disk has it, so that it survives a loss of power
    Raises `failure(path, error)` if it cannot be written; what was there before is then unchanged.
    """
    try:
        with replacing(path, durable) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise failure(path, error) from error


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path`, to write a file or a folder to, which takes its place when the block ends.

    After an exception in the block it is removed, and `path` is as it was.  Its name is unique, so several processes
    may replace one file at a time.
    durable  wait until the disk has all of it
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            for file in temporary.iterdir() if temporary.is_dir() else (temporary,):
                with file.open("r+b") as handle:
                    os.fsync(handle.fileno())
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)  # a folder does not replace one that is not empty
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error says what is wrong
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        raise


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with a newline at its end; without `indent` on one line and without spaces."""
    return json.dumps(content, indent=indent, separators=None if indent else (",", ":")) + "\n"
