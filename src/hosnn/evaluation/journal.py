"""What an unfinished evaluation has done so far: one JSON line per finished block of an attack, appended as it ends."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hosnn.errors import ConfigError
from hosnn.files import write_text

SUFFIX = ".partial.jsonl"


def journal_path(folder: Path, stem: str, shard: tuple[int, int] | None = None) -> Path:
    """Where an evaluation called `stem`, or its shard (number, count), keeps its finished blocks."""
    return folder / f"{stem}{SUFFIX if shard is None else f'.{shard[0]}-of-{shard[1]}{SUFFIX}'}"


def journals(path: Path) -> list[Path]:
    """The file of a whole evaluation and those of its shards, as far as they exist."""
    stem = path.name.removesuffix(SUFFIX)
    shards = sorted(path.parent.glob(f"{stem}.*-of-*{SUFFIX}")) if path.name.endswith(SUFFIX) else []
    return [*([path] if path.exists() else []), *shards]


class Journal:
    """Finished blocks by (attack, block number), kept in a file if one is given.

    The first line tells which evaluation the file belongs to; a file of another evaluation is started afresh.  A last
    line cut off by a kill is dropped.  What shards of the same evaluation have finished counts as done too.
    seconds  what blocks found done had taken, each on its own thread
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
                self._take(_lines(shard), header)
        lines = _lines(path) if path.exists() else []
        kept = [header, *self._take(lines, header)]
        if kept != lines:
            write_text(path, "\n".join(kept) + "\n")
        self.seconds = sum(spec["seconds"] for spec in self._done.values())

    def _take(self, lines: list[str], header: str) -> list[str]:
        """Remember the finished blocks in `lines`, if they are of this evaluation; returns the lines that tell them."""
        kept: list[str] = []
        for line in lines[1:] if lines[:1] == [header] else ():
            try:
                spec = json.loads(line)
            except ValueError:
                break
            self._done[spec["attack"], spec["block"]] = spec
            kept.append(line)
        return kept

    @property
    def kept(self) -> bool:
        """Whether finished blocks outlive the process."""
        return self._path is not None

    def get(self, attack: str, block: int) -> dict[str, Any] | None:
        """What was recorded for a block, None if it is still to do."""
        return self._done.get((attack, block))

    def put(self, attack: str, block: int, found: Mapping[str, Any]) -> dict[str, Any]:
        """Record a finished block."""
        spec = {"attack": attack, "block": block, **found}
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(spec) + "\n")
            except OSError as error:
                raise ConfigError(
                    f"cannot write {self._path}: {error}; choose another place or free some space"
                ) from error
        self._done[attack, block] = spec
        return spec


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}; move it away, or choose another place") from error
