"""Whether the parts of a stored result agree with each other: their types alone do not show what was cut or changed."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hosnn.errors import ConfigError
from hosnn.results.evaluation_parts import AttackResult, Panel

BUDGET = re.compile(r"[^:]+:([^/@]+)(?:/([0-9.]+))?(?:/step)?(?:@[0-9]+bit)?")


def check_evaluation(
    index: Sequence[int],
    columns: Mapping[str, Sequence[int]],
    clean_tied: Sequence[int] | None,
    rows: Sequence[AttackResult],
    panels: Sequence[Panel],
) -> None:
    """Raises ConfigError unless there is one entry for each image, each attack once, and every threat has a budget.

    columns  labels and clean predictions, by their name
    """
    images = len(index)
    if not images or len(set(index)) < images:
        raise ConfigError(f"its index holds {images} images, some twice or none at all; expected each once")
    for name, column in columns.items():
        _check(len(column) == images, f"{name} has {len(column)} entries", images)
    _check_positions("clean_tied", clean_tied, images)
    check_unique("attack", [row.attack for row in rows])
    check_unique("panel", [panel.name for panel in panels])
    for row in rows:
        _check(len(row.predictions) == images, f"{row.attack} has {len(row.predictions)} predictions", images)
        _check_row(row)
    for panel in panels:
        check_unique(f"attack of the panel {panel.name}", [row.attack for row in panel.rows])
        for row in panel.rows:
            count = len(panel.rows[0].predictions)
            if not len(row.predictions) == count <= images or not count:
                raise ConfigError(
                    f"{row.attack} of the panel {panel.name} has {len(row.predictions)} predictions; expected as many "
                    f"as the others of the panel, 1 to {images}"
                )
            _check_row(row)


def check_summary(stored: Any, computed: Mapping[str, Any]) -> None:
    """Raises ConfigError if the accuracies that a file states are not those of its predictions."""
    if not isinstance(stored, Mapping):
        raise ConfigError(f"its summary is {type(stored).__name__}; expected an object")
    for name, value in computed.items():
        if name in stored and not _same(stored[name], value):
            raise ConfigError(
                f"its summary has {name} {stored[name]!r}, but its predictions and checks give {value!r}; the file was "
                "changed or cut"
            )


def check_unique(kind: str, names: Sequence[str]) -> None:
    """Raises ConfigError if a name occurs twice."""
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ConfigError(f"the {kind} {twice!r} occurs twice; expected each once")


def _check_row(row: AttackResult) -> None:
    _check_positions(f"tied of {row.attack}", row.tied, len(row.predictions))
    check_threat(row.threat)


def _check(holds: bool, what: str, images: int) -> None:
    if not holds:
        raise ConfigError(f"{what} for {images} images; expected one for each")


def _check_positions(name: str, positions: Sequence[int] | None, images: int) -> None:
    if positions is not None and (len(set(positions)) < len(positions) or max(positions, default=0) >= images):
        raise ConfigError(f"{name} holds positions beyond the {images} images, or one twice; expected each once")


def check_threat(threat: str) -> None:
    """Raises ConfigError unless the budget is a number, which the pattern of the type does not ensure."""
    parts = BUDGET.fullmatch(threat)
    try:
        eps = float(parts[1]) / float(parts[2] or 1) if parts else math.nan
    except (ValueError, ZeroDivisionError):
        eps = math.nan
    if not 0 <= eps < math.inf:
        raise ConfigError(f"the threat {threat!r} has no budget; expected norm:eps, e.g. linf:8/255")


def _same(stored: Any, computed: Any) -> bool:
    if isinstance(computed, Mapping):
        return (
            isinstance(stored, Mapping)
            and stored.keys() == computed.keys()
            and all(_same(stored[name], computed[name]) for name in computed)
        )
    if isinstance(computed, (list, tuple)):
        same_length = isinstance(stored, (list, tuple)) and len(stored) == len(computed)
        return same_length and all(map(_same, stored, computed))
    if isinstance(computed, float) and isinstance(stored, (int, float)):
        return math.isclose(stored, computed, abs_tol=1e-9)
    return bool(stored == computed)
