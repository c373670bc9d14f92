"""Pictures in one folder a class, as people keep them.

Legend: N rows, C channels, H height, W width.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hosnn.data.cache import decoded
from hosnn.data.naming import natural
from hosnn.data.parts import Parts
from hosnn.data.pictures import decode
from hosnn.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
PARTS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"validation": "validation", "val": "validation", "valid": "validation"},
}
"""Names of subfolders that part a data set."""

logger = logging.getLogger(__name__)


def read_class_folders(root: Path) -> Parts:
    """ROOT/CLASS/pictures, or ROOT/train/CLASS/pictures beside test and perhaps validation.

    Classes are numbered in natural order of their folders' names, pictures come in natural order.  Hidden files and
    what has another ending than .png, .jpg, .jpeg or .webp are left out, and with a warning other folders beside train.
    Raises DataError, naming the file, for pictures of several sizes or that `pictures.decode` refuses, for folders
    without pictures, or classes that are not in the training part.
    """
    folders = _folders(root)
    named = [(PARTS[folder.name.casefold()], folder) for folder in folders if folder.name.casefold() in PARTS]
    parted = dict(named)
    if {"train", "test"} <= parted.keys() and len(parted) < len(named):
        raise DataError(
            f"{root} has several folders for one part: {', '.join(folder.name for _, folder in named)}; expected one "
            "each for train, test and perhaps validation"
        )
    if not {"train", "test"} <= parted.keys():
        if parted and len(parted) == len(folders):  # else a class may be called train
            missing = ", ".join({"train", "test"} - parted.keys())
            raise DataError(f"{root} has no {missing} beside {', '.join(parted)}; expected ROOT/train and ROOT/test")
        parted = {"all": root}
    elif len(parted) < len(folders):
        others = ", ".join(folder.name for folder in folders if folder not in parted.values())
        logger.warning("%s: %s left out; only train, test and validation are read", root, others)
    names = {part: [folder.name for folder in _folders(folder)] for part, folder in parted.items()}
    classes = tuple(dict.fromkeys(names.get("train") or names.get("all") or []))
    if len(classes) < 2:
        raise DataError(
            f"{root} has {len(classes)} class folders, expected at least 2, each with pictures of one class "
            f"({', '.join(ENDINGS)}): {root.name}/cats/1.png, {root.name}/dogs/1.png"
        )
    for part, found in names.items():
        unknown = sorted(set(found) - set(classes))
        if unknown:
            raise DataError(f"{root}: {part} has a class {unknown[0]!r} that train does not; expected the same classes")
    files = {part: _pictures(folder, classes, all_of_them=part in ("train", "all")) for part, folder in parted.items()}
    paths = [path for listed in files.values() for path, _ in listed]
    relative = [str(path.relative_to(root)) for path in paths]
    tensors = decoded(tuple(paths), lambda: _decoded(paths), len(paths), "class folders", relative)
    images, labels, start = {}, {}, 0
    for part, listed in files.items():
        images[part] = tensors["images"][start : start + len(listed)]
        labels[part] = torch.tensor([label for _, label in listed], dtype=torch.int64)
        start += len(listed)
    return Parts(images=images, labels=labels, classes=classes, lossy=int(tensors["lossy"]), origin=str(root))


def _folders(folder: Path) -> list[Path]:
    """Subfolders in natural order, hidden ones left out."""
    return sorted((path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"), key=natural)


def _pictures(folder: Path, classes: tuple[str, ...], all_of_them: bool) -> list[tuple[Path, int]]:
    """Each picture with its class number, class after class.  Raises DataError if `all_of_them` must have pictures."""
    listed = []
    for label, name in enumerate(classes):
        pictures = [path for path in (folder / name).rglob("*") if path.suffix.casefold() in ENDINGS]
        mine = sorted(
            (path for path in pictures if path.is_file() and path.name[0] != "."),
            key=lambda path: [natural(part) for part in (*reversed(path.relative_to(folder).parents), path)],
        )
        if not mine and all_of_them:
            raise DataError(f"{folder / name} has no pictures; expected files ending in {', '.join(ENDINGS)}")
        listed += [(path, label) for path in mine]
    return listed


def _decoded(paths: list[Path]) -> dict[str, Tensor]:
    """`images` [N, C, H, W] uint8, RGB if any picture has colour, and how many came in a `lossy` encoding."""
    size: tuple[int, int] | None = None
    pictures = []
    lossy = 0
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); mend or remove it") from error
        picture = decode(content, str(path), size)
        size = size or picture.pixels.shape[:2]
        lossy += not picture.exact
        pictures.append(picture.pixels)
    channels = max(pixels.shape[2] for pixels in pictures)
    stacked = np.stack([np.broadcast_to(pixels, (*pixels.shape[:2], channels)) for pixels in pictures])
    images = torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))
    return {"images": images, "lossy": torch.tensor(lossy)}
