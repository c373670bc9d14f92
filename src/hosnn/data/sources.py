"""The sources of a data set: tried in order, their content verified by shape and hash."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from hosnn.data.dataset import Dataset
from hosnn.data.ordering import has_published_labels, in_original_order
from hosnn.data.specification import Specification, Verified
from hosnn.data.split import Split
from hosnn.errors import DataError
from hosnn.places import cache_folder

logger = logging.getLogger(__name__)


class DatasetFiles(Protocol):
    """A data set's files on disk in one format; `str` names them."""

    def read(self, specification: Specification) -> "Contents":
        """Decoded train and test splits.  Raises DataError naming the file that is not as specified."""


class Contents(NamedTuple):
    """What files hold.

    lossy    images of both splits that came in a lossy encoding
    vouched  whether every file has the hash published for it
    """

    train: Split
    test: Split
    lossy: int = 0
    vouched: bool = False


@dataclass(frozen=True)
class FolderLayout:
    """How a data set's files may lie in a folder.

    formats     a function per format: the folder's files of that format, or None; raises DataError if some are missing
    subfolders  names of subfolders to search after the folder itself
    expected    the file names, as text for error messages
    """

    formats: tuple[Callable[[Path], DatasetFiles | None], ...]
    subfolders: tuple[str, ...]
    expected: str


@dataclass(frozen=True)
class Source:
    """One source of a data set.

    find  returns its files, downloaded if it needs the network; raises DataError with the reason if there are none
    """

    name: str
    find: Callable[[], DatasetFiles]
    needs_network: bool = False


@dataclass(frozen=True)
class SourceStatus:
    """Whether a source has a data set's files; their content is not read.

    detail  names the files, or the reason why there are none
    """

    dataset: str
    source: str
    found: bool
    detail: str
    needs_network: bool = False


def load_files(specification: Specification, files: DatasetFiles, source_name: str) -> Dataset:
    """Read, verify by shape and by what hashes there are, and part the validation split.

    Hashes are compared on what was decoded, so the same images verify in any container.  Raises DataError.
    """
    return _parted(
        specification, files.read(specification), f"{source_name}: {files}", f"{specification.name} ({files})"
    )


def recognised(specification: Specification, contents: Contents, source: str) -> Dataset | None:
    """The published data set, if published hashes vouch for each pixel of `contents`; else None."""
    expected = ((specification.train_size, contents.train), (specification.test_size, contents.test))
    for size, split in expected:
        if (len(split), split.images.dtype) != (size, torch.uint8):
            return None
        if tuple(split.images.shape[1:]) != specification.image_shape:
            return None
        if int(split.labels.min()) < 0 or int(split.labels.max()) >= len(specification.classes):
            return None
    try:
        dataset = _parted(specification, contents, source, source)
    except DataError:
        return None
    return dataset if dataset.verified is Verified.PIXELS else None


def _parted(specification: Specification, contents: Contents, source: str, origin: str) -> Dataset:
    train = in_original_order(contents.train, specification.label_parts, origin)
    return Dataset.from_splits(
        specification.name,
        specification.classes,
        train,
        contents.test,
        validation_size=specification.validation_size,
        source=source,
        image_shape=specification.image_shape,
        sha256=specification.sha256,
        lossy=contents.lossy,
        verified=_verified(specification, contents._replace(train=train), origin),
    )


def _verified(specification: Specification, contents: Contents, origin: str) -> Verified:
    """What hashes vouch for.  Raises DataError for exact pixels, or labels, that are not the published ones."""
    if specification.verify is not None:
        if specification.verify(contents.train, contents.test):
            return Verified.PIXELS
        if not contents.lossy:
            raise DataError(
                f"{origin}: the files decode, but their content is not the published one; they are another version or "
                "were altered: get them again, or take another source"
            )
    if specification.label_parts:
        if not has_published_labels(contents.train, specification.label_parts):
            raise DataError(f"{origin}: the training labels are not the published ones; get the files again")
        return Verified.LABELS
    return Verified.PIXELS if contents.vouched else Verified.NOTHING


def load_first(specification: Specification, sources: tuple[Source, ...], advice: str) -> Dataset:
    """The data set from the first source whose files are complete and undamaged.

    Damaged files are logged as a warning, and the next source is tried.
    Raises one DataError that lists why each source failed, then `advice`.
    """
    reasons = []
    for source in sources:
        switch = offline_switch()
        if source.needs_network and switch:
            reasons.append(f"{source.name}: not tried, {switch} is set")
            continue
        try:
            files = source.find()
        except DataError as error:
            reasons.append(f"{source.name}: {error}")
            continue
        try:
            return load_files(specification, files, source.name)
        except DataError as error:
            logger.warning("%s: skipping %s: %s", specification.name, source.name, error)
            reasons.append(f"{source.name}: {error}")
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    raise DataError(f"{specification.name} was not found.  Tried in order:\n{tried}\n{advice}")


def describe(dataset: str, sources: tuple[Source, ...]) -> list[SourceStatus]:
    """The status of each source, without network access and without reading the data."""

    def status(source: Source) -> SourceStatus:
        if source.needs_network:
            switch = offline_switch()
            detail = f"off: {switch} is set" if switch else "tried if no local source has it"
            return SourceStatus(dataset, source.name, False, detail, needs_network=True)
        try:
            return SourceStatus(dataset, source.name, True, str(source.find()))
        except DataError as error:
            return SourceStatus(dataset, source.name, False, str(error))

    return [status(source) for source in sources]


def find_in_folder(folder: Path, layout: FolderLayout) -> DatasetFiles:
    """The files of the first format that `folder` or one of the layout's subfolders has.

    Raises DataError if there are none, or if some are missing.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        fault = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {fault}, expected a folder with {layout.expected}; check its name")
    for candidate in (folder, *(folder / name for name in layout.subfolders)):
        for find in layout.formats:
            files = find(candidate)
            if files is not None:
                return files
    raise DataError(f"{folder} has no data, expected {layout.expected}; put the files there under these names")


def find_in_cache(name: str, layout: FolderLayout) -> DatasetFiles:
    """Files of the data set `name` in hosnn's cache of downloads.  Raises DataError if there are none."""
    folder = cache_folder() / name
    if not folder.is_dir():
        raise DataError(f"nothing was downloaded yet (no {folder})")
    return find_in_folder(folder, layout)


def find_in_system(name: str, layout: FolderLayout) -> DatasetFiles:
    """Files of a distribution's package: datasets/`name` in the system's data folders.

    Raises DataError if there are none.
    """
    folders = [folder / "datasets" / name for folder in system_data_folders()]
    for folder in folders:
        if folder.is_dir():
            return find_in_folder(folder, layout)
    raise DataError(f"not installed (no {' or '.join(map(str, folders))})")


def system_data_folders() -> list[Path]:
    """XDG_DATA_DIRS, then its two default folders (XDG Base Directory Specification).

    The defaults are always searched: a desktop may set the variable without them, yet packages install there.
    """
    named = [*os.environ.get("XDG_DATA_DIRS", "").split(":"), "/usr/local/share", "/usr/share"]
    return list(dict.fromkeys(Path(folder) for folder in named if Path(folder).is_absolute()))


def offline_switch() -> str | None:
    """The environment variable that forbids network access ("HOSNN_OFFLINE=1"), or None."""
    for name in ("HOSNN_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}:
            return f"{name}={os.environ[name]}"
    return None
