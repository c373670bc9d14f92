"""Journal of an unfinished evaluation: a JSON line for each finished block of images of each attack."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hosnn.errors import ConfigError
from hosnn.files import cannot_write, write_text

SUFFIX = ".partial.jsonl"


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

    The first line holds the evaluation's identity; a file of another evaluation is emptied.  A last line cut off by a
    kill is dropped.  Blocks in the journals of its shards count, too.
    seconds  time that the blocks read from files took, summed over threads
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._done: dict[tuple[str, int], dict[str, Any]] = {}
        self.seconds = 0.0
        if path is None:
            return
        header = json.dumps({"evaluation": identity}, sort_keys=True)
        for shard in journals(path):
            if shard != path:
                self._read(_lines(shard), header)
        lines = _lines(path) if path.exists() else []
        valid = [header, *self._read(lines, header)]
        if valid != lines:
            write_text(path, "\n".join(valid) + "\n")
        self.seconds = sum(block["seconds"] for block in self._done.values())

    def _read(self, lines: list[str], header: str) -> list[str]:
        """Add the finished blocks in `lines`, if they are of this evaluation; returns the lines that hold them."""
        valid: list[str] = []
        for line in lines[1:] if lines[:1] == [header] else ():
            try:
                block = json.loads(line)
            except ValueError:
                break
            self._done[block["attack"], block["block"]] = block
            valid.append(line)
        return valid

    @property
    def is_stored(self) -> bool:
        """Whether finished blocks are in a file, so that they outlive the process."""
        return self._path is not None

    def get(self, attack: str, block: int) -> dict[str, Any] | None:
        """The record of a block, None if it is not finished."""
        return self._done.get((attack, block))

    def put(self, attack: str, block: int, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Record a finished block; returns the record."""
        record = {"attack": attack, "block": block, **outcome}
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
            except OSError as error:
                raise cannot_write(self._path, error) from error
        self._done[attack, block] = record
        return record


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}; move it away, or choose another place") from error
