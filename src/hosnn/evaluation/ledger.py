"""What an unfinished evaluation has done so far: one JSON line per finished block of an attack, appended as it ends."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hosnn.errors import ConfigError
from hosnn.evaluation.result import write_text


class Ledger:
    """Finished blocks by (attack, block number), kept in a file if one is given.

    The first line tells which evaluation the file belongs to; a file of another evaluation is started afresh.  A last
    line cut off by a kill is dropped.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._done: dict[tuple[str, int], dict[str, Any]] = {}
        if path is None:
            return
        header = json.dumps({"evaluation": identity}, sort_keys=True)
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error}; move it away, or choose another place") from error
        kept = [header]
        if lines and lines[0] == header:
            for line in lines[1:]:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                self._done[entry["attack"], entry["block"]] = entry
                kept.append(line)
        if kept != lines:
            write_text(path, "\n".join(kept) + "\n")

    def get(self, attack: str, block: int) -> dict[str, Any] | None:
        """What was recorded for a block, None if it is still to do."""
        return self._done.get((attack, block))

    def put(self, attack: str, block: int, predictions: list[int], seconds: float) -> dict[str, Any]:
        """Record a finished block."""
        entry = {"attack": attack, "block": block, "predictions": predictions, "seconds": seconds}
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise _cannot_write(self._path, error) from error
        self._done[attack, block] = entry
        return entry


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error}; choose another place or free some space")
