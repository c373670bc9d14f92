"""The order of file names that people mean."""

import re
from pathlib import Path


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A sorting key for file names by which train-2 comes before train-10."""
    pieces = re.findall(r"\d+|\D+", path.name)
    return [(0, int(piece), piece) if piece.isdigit() else (1, 0, piece) for piece in pieces]
