"""Trained networks inside the package, if any, which load without a connection: `hosnn.load(NAME)`.

Each is a checkpoint folder with a card.  docs/leaderboard.md says how robust they are, with protocol, data and cost.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The names of the networks."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def folder(name: str) -> Path | None:
    """The checkpoint folder of the network of this name; None if there is none."""
    return FOLDER / name if name in names() else None
