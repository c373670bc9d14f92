"""Journal of an unfinished evaluation: a JSON line for each finished block of images of each attack."""

import json
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from hosnn.errors import ConfigError, SetAsideWarning
from hosnn.files import (
    LARGEST_TEXT,
    cannot_write,
    parse_json,
    read_bytes,
    read_json_lines,
    regular_size,
    set_aside,
    write_bytes,
)
from hosnn.schema import Amount, Count, Integer, Name, validated

SUFFIX = ".partial.jsonl"

ATTEMPTS = 10
"""Of reading or writing a journal that other processes rename or remove."""

OTHERS = {
    "model": "the weights are others",
    "structure": "the network is another",
    "answers": "the network answers differently",
    "scale": "the network's scores have another scale",
    "code": "the code of the network's classes was changed",
    "images": "the images are others",
    "dataset": "the data set is another",
    "settings": "the protocol's settings are others",
    "protocol": "the protocol is another",
    "threat": "the threat is another",
    "seed": "the seed is another",
    "device": "the device is another",
    "backend": "neurons ran on another backend",
    "block_size": "blocks have another size",
}
"""What it means that a part of two evaluations' identity differs."""


@dataclass(frozen=True, kw_only=True)
class FinishedBlock:
    """A line of the journal: what an attack did to one block of images.

    predictions  classes after the attack, -1 for images that were not attacked
    tied         positions in the block whose label shares the highest logit
    denied       positions whose success, as the attack saw it, the verdict denies
    checksum     CRC-32 of the other entries, after that of the journal's first line; lines of older versions have none
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    attack: Name
    block: Count
    predictions: tuple[Annotated[int, Field(strict=True, ge=-1)], ...]
    tied: tuple[Count, ...]
    seconds: Amount
    forward: Count
    backward: Count
    denied: tuple[Count, ...] = ()
    checksum: Integer | None = None


def journal_path(folder: Path, stem: str, shard: tuple[int, int] | None = None) -> Path:
    """The journal of an evaluation called `stem`, or of its shard (number, count)."""
    return folder / f"{stem}{SUFFIX if shard is None else f'.{shard[0]}-of-{shard[1]}{SUFFIX}'}"


def journals(path: Path) -> list[Path]:
    """The journals that exist: that of a whole evaluation, those of its shards, and those kept under another name."""
    stem = escape(path.name.removesuffix(SUFFIX))
    shards = sorted(path.parent.glob(f"{stem}.*-of-*{SUFFIX}")) if path.name.endswith(SUFFIX) else []
    kept = [journal for shard in (path, *shards) for journal in _kept_under_other_names(shard)]
    return [*([path] if path.exists() else []), *shards, *kept]


def _kept_under_other_names(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{escape(path.stem)}.kept-*{path.suffix}"))


def remove_journals(path: Path) -> None:
    """Remove the journal of an evaluation whose result is saved, and those of its shards; others' journals stay."""
    if path.exists():
        header = _first_line(path)
        for journal in journals(path):
            if _first_line(journal) == header:
                journal.unlink(missing_ok=True)


class Journal:
    """Finished blocks by (attack, block number), kept in a file if one is given.

    The first line holds the evaluation's identity.  A file of another evaluation is kept under another name, which a
    SetAsideWarning says.  A damaged line, such as one cut off by a kill, is dropped.  Blocks in the journals of the
    evaluation's shards count, too, and those in a journal of it that was kept under another name.
    seconds  time that the blocks read from files took, summed over threads
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._done: dict[tuple[str, int], dict[str, Any]] = {}
        self._header = b""
        self.seconds = 0.0
        if path is None:
            return
        self._header = json.dumps({"evaluation": identity}, sort_keys=True).encode()
        try:
            _again(lambda: self._begin(path))
        except OSError as error:
            raise _cannot_read(path, error) from error
        self.seconds = sum(block["seconds"] for block in self._done.values())

    def _begin(self, path: Path) -> None:
        """Read what is finished, and leave a file with this evaluation's identity and nothing damaged."""
        _make_room(path, self._header)
        for journal in journals(path):
            if journal != path:
                self._read(journal)
        kept = b"".join(line + b"\n" for line in (self._header, *self._read(path)))
        if not path.exists() or read_bytes(path) != kept:
            write_bytes(path, kept)

    def _read(self, path: Path) -> list[bytes]:
        """Add the finished blocks in a file, if they are of this evaluation; returns the lines that hold them."""
        if not path.exists() or _first_line(path) != self._header:
            return []
        blocks = read_json_lines(path, lambda content: _finished_block(content, self._header))
        self._done = {(block["attack"], block["block"]): block for block in blocks.values()} | self._done
        return list(blocks)

    @property
    def is_stored(self) -> bool:
        """Whether finished blocks are in a file, so that they outlive the process."""
        return self._path is not None

    def get(self, attack: str, block: int, images: int) -> dict[str, Any] | None:
        """The record of a block of so many images, None if it is not finished."""
        record = self._done.get((attack, block))
        return record if record is not None and len(record["predictions"]) == images else None

    def put(self, attack: str, block: int, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Record a finished block; returns the record."""
        record = {"attack": attack, "block": block, **outcome}
        if self._path is not None:
            path, line = self._path, json.dumps(record | {"checksum": _checksum(record, self._header)}) + "\n"
            try:
                _again(lambda: self._append(path, line))
            except OSError as error:
                raise cannot_write(path, error) from error
        self._done[attack, block] = record
        return record

    def _append(self, path: Path, line: str) -> None:
        with open(self._own_file(path), "a", encoding="utf-8", opener=_existing) as file:
            file.write(line)

    def _own_file(self, path: Path) -> Path:
        """The file of this evaluation, which another process may have kept under another name, or removed."""
        for journal in (path, *_kept_under_other_names(path)):
            if _first_line(journal) == self._header:
                return journal
        _make_room(path, self._header)
        write_bytes(path, self._header + b"\n")
        return path


def _existing(path: str, flags: int) -> int:
    """Open a file that is not made if it is not there: one without its first line would be nobody's."""
    return os.open(path, flags & ~os.O_CREAT)


def _again(action: Callable[[], None]) -> None:
    """Do it, and once more where another process renamed or removed a journal in the middle of it."""
    for _ in range(ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            return action()
    return action()


def _make_room(path: Path, header: bytes) -> None:
    """Keep the journal of another evaluation under another name, unless nothing of it is finished."""
    if not path.exists() or _first_line(path) == header:
        return
    blocks = read_bytes(path).partition(b"\n")[2].count(b"\n")
    if blocks:
        kept = set_aside(path)
        warnings.warn(
            f"{path} holds {blocks} finished blocks that this evaluation cannot continue from, because "
            f"{_difference(_first_line(kept), header)}; they are kept in {kept}",
            SetAsideWarning,
            stacklevel=2,
        )


def _difference(stored: bytes, header: bytes) -> str:
    """What distinguishes the evaluation of a stored journal from the present one, in words."""
    try:
        before = dict(parse_json(stored)["evaluation"])
    except (ValueError, TypeError, KeyError):
        return "the line that says which evaluation they are of is damaged"
    now = parse_json(header)["evaluation"]
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    versions = now.get("versions", {})
    changes = [
        f"{package} was {version}, now {versions.get(package, 'not installed')}"
        for package, version in dict(before.get("versions", {})).items()
        if version != versions.get(package)
    ]
    reasons = [OTHERS.get(name, f"{name} differs") for name in names if name != "versions"]
    return "; ".join([*reasons, *changes]) or "they were made by another version of hosnn"


def _first_line(path: Path) -> bytes:
    """The line of a journal that says which evaluation it is of; empty if there is no such file."""
    try:
        regular_size(path)
        with path.open("rb") as file:
            return file.readline(LARGEST_TEXT).rstrip(b"\n")
    except FileNotFoundError:
        return b""


def _finished_block(content: Any, header: bytes) -> dict[str, Any]:
    """The record in a line of a journal.  Raises ValueError if it is damaged, or of another evaluation."""
    block = validated(FinishedBlock, content)
    record = {name: value for name, value in content.items() if name != "checksum"}
    # Lines of older versions have the checksum of the record alone, or none.
    checksums = (None, _checksum(record), _checksum(record, header))
    if block.checksum not in checksums or max(block.tied, default=-1) >= len(block.predictions):
        raise ValueError("it was changed after it was written")
    return {"denied": [], **record}


def _checksum(record: Mapping[str, Any], header: bytes = b"") -> int:
    """CRC-32 of a record and of the evaluation that it belongs to."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode(), zlib.crc32(header))


def _cannot_read(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error}; move it away, or choose another place")
