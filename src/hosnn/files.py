"""Files: read with an error that says what is wrong, written whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hosnn.errors import ConfigError, HosnnError

T = TypeVar("T")

DAY = 86_400.0  # seconds

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_LEFTOVER = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.tmp", re.DOTALL)
"""Names of temporary files: of what, and of which machine and process."""

LARGEST_TEXT = 64 << 20
"""Bytes of the largest JSON file that is read."""


def cannot_write(path: Path, error: Exception) -> ConfigError:
    """The error for a file that cannot be written, unless the caller has a more specific one."""
    return ConfigError(f"cannot write {path}: {error}; choose another place or free some space")


def read_bytes(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """The content of a file.  Raises OSError for a device or pipe, which may never end, or more than `limit` bytes."""
    size = regular_size(path)
    if size > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, expected at most {limit:,}")
    return path.read_bytes()


def regular_size(path: Path) -> int:
    """Bytes of a file.  Raises OSError unless there is one that ends: no folder, device or pipe."""
    try:
        status = path.stat()
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a device or a pipe, expected a file")
    return status.st_size


def parse_json(content: bytes) -> Any:
    """A JSON value in UTF-8.  Raises ValueError for anything else, also for NaN, or a name twice in one object."""
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("it holds NaN, which is no number")
    return float(name)


def read_json(
    path: Path,
    kind: str,
    parse: Callable[[Any], T],
    advice: str = "",
    failure: Callable[[str], HosnnError] = ConfigError,
) -> T:
    """`parse` of a JSON file's content.

    kind     what the file should contain, e.g. "evaluation", for the error's message
    advice   the end of that message
    failure  the error of that message
    Raises `failure` if the file cannot be read, is no JSON, or `parse` raises.
    """
    try:
        return parse(parse_json(read_bytes(path)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise failure(f"cannot read the {kind} {path}: {error}{advice}") from error


def read_json_lines(path: Path, parse: Callable[[Any], T]) -> dict[bytes, T]:
    """`parse` of each line of a file, by the line; a damaged line, or one for which `parse` raises, is left out.

    Raises OSError if the file cannot be read.
    """
    values: dict[bytes, T] = {}
    for line in read_bytes(path).split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            values[line] = parse(parse_json(line))
    return values


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
    may replace one file at a time; what a killed one left is removed.  Of a link, the file that it names is replaced.
    durable  wait until the disk has all of it
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "the path holds a NUL")
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        _remove_leftovers(path.parent)
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


def set_aside(path: Path, suffixes: tuple[str, ...] = ()) -> Path:
    """Rename a file to the first free NAME.kept-N.SUFFIX beside it, so that another may take its place.

    suffixes  of files of the same name that go with it, such as ".md"
    Raises OSError if it cannot be renamed.
    """
    every = (path.suffix, *suffixes)
    for number in count(1):
        names = {suffix: path.with_name(f"{path.stem}.kept-{number}{suffix}") for suffix in every}
        if not any(name.exists() for name in names.values()):
            break
    for suffix, name in names.items():
        file = path.with_suffix(suffix)
        if suffix == path.suffix or file.exists():
            file.rename(name)
    return names[path.suffix]


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that dead processes of this machine left, and any that are a day old."""
    with contextlib.suppress(OSError):
        for leftover in folder.glob(".*.tmp"):
            writer = _LEFTOVER.fullmatch(leftover.name)
            if writer is None:
                continue
            if time.time() - leftover.stat().st_mtime > DAY or (writer[1] == _HOST and not _is_alive(int(writer[2]))):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, say
        return True
    return True


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with a newline at its end; without `indent` on one line and without spaces."""
    return json.dumps(content, indent=indent, separators=None if indent else (",", ":")) + "\n"
