"""Journal of an unfinished evaluation: a JSON line for each finished block of images of each attack."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from hosnn.errors import ConfigError
from hosnn.files import cannot_write, read_bytes, read_json_lines, write_bytes
from hosnn.schema import Amount, Count, Integer, Name, validated

SUFFIX = ".partial.jsonl"


@dataclass(frozen=True, kw_only=True)
class FinishedBlock:
    """A line of the journal: what an attack did to one block of images.

    predictions  classes after the attack, -1 for images that were not attacked
    tied         positions in the block whose label shares the highest logit
    denied       positions whose success, as the attack saw it, the verdict denies
    checksum     CRC-32 of the other entries; lines of older versions have none
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
    """The journals that exist: that of a whole evaluation, and those of its shards."""
    stem = path.name.removesuffix(SUFFIX)
    shards = sorted(path.parent.glob(f"{stem}.*-of-*{SUFFIX}")) if path.name.endswith(SUFFIX) else []
    return [*([path] if path.exists() else []), *shards]


class Journal:
    """Finished blocks by (attack, block number), kept in a file if one is given.

    The first line holds the evaluation's identity; a file of another evaluation is emptied.  A damaged line, such as
    one cut off by a kill, is dropped.  Blocks in the journals of its shards count, too.
    seconds  time that the blocks read from files took, summed over threads
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._done: dict[tuple[str, int], dict[str, Any]] = {}
        self.seconds = 0.0
        if path is None:
            return
        header = json.dumps({"evaluation": identity}, sort_keys=True).encode()
        for shard in journals(path):
            if shard != path:
                self._read(shard, header)
        kept = b"".join(line + b"\n" for line in (header, *self._read(path, header)))
        try:
            if not path.exists() or read_bytes(path) != kept:
                write_bytes(path, kept)
        except OSError as error:
            raise _cannot_read(path, error) from error
        self.seconds = sum(block["seconds"] for block in self._done.values())

    def _read(self, path: Path, header: bytes) -> list[bytes]:
        """Add the finished blocks in a file, if they are of this evaluation; returns the lines that hold them."""
        try:
            if not path.exists() or read_bytes(path).partition(b"\n")[0] != header:
                return []
            blocks = read_json_lines(path, _finished_block)
        except OSError as error:
            raise _cannot_read(path, error) from error
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
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record | {"checksum": _checksum(record)}) + "\n")
            except OSError as error:
                raise cannot_write(self._path, error) from error
        self._done[attack, block] = record
        return record


def _finished_block(content: Any) -> dict[str, Any]:
    """The record in a line of a journal.  Raises ValueError if it is damaged."""
    block = validated(FinishedBlock, content)
    record = {name: value for name, value in content.items() if name != "checksum"}
    if block.checksum not in (None, _checksum(record)) or max(block.tied, default=-1) >= len(block.predictions):
        raise ValueError("it was changed after it was written")
    return record


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _cannot_read(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error}; move it away, or choose another place")
