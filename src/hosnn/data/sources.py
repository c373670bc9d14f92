"""Where a data set may come from: sources tried in order, what each gave verified by shape and hash."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from hosnn.data.dataset import Dataset, Specification, Split, Verified
from hosnn.data.ordering import has_published_labels, in_original_order
from hosnn.errors import DataError

logger = logging.getLogger(__name__)


class Files(Protocol):
    """Files on disk in one format; its text form names them."""

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
class Formats:
    """What a data set's files in a folder look like.

    finders   each gives the files of one format there, or None, or raises DataError if some of them are missing
    places    subfolders where programs keep them; the folder itself comes first
    expected  the names to look for, for people
    """

    finders: tuple[Callable[[Path], Files | None], ...]
    places: tuple[str, ...]
    expected: str


@dataclass(frozen=True)
class Source:
    """One place to look.  `find` returns its files, or raises DataError saying why there are none; a source that
    needs the network downloads in `find`."""

    name: str
    find: Callable[[], Files]
    needs_network: bool = False


@dataclass(frozen=True)
class SourceStatus:
    """What a glance at a source tells: files are there or not (their content is not read)."""

    dataset: str
    source: str
    found: bool
    detail: str
    needs_network: bool = False


def load_files(specification: Specification, files: Files, source_name: str) -> Dataset:
    """Read, verify by shape and by what hashes there are, and part the validation split.

    Hashes are compared on what was decoded, so the same images verify in any container.  Raises DataError.
    """
    contents = files.read(specification)
    origin = f"{specification.name} ({files})"
    train = in_original_order(contents.train, specification.label_parts, origin)
    return Dataset.from_splits(
        specification.name,
        specification.classes,
        train,
        contents.test,
        validation_size=specification.validation_size,
        source=f"{source_name}: {files}",
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
    """The data set from the first source that has it whole.

    A source whose files are damaged is logged as a warning and the next is tried.
    Raises one DataError that lists every source with its reason, then `advice`.
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
            logger.warning("%s: %s is passed over: %s", specification.name, source.name, error)
            reasons.append(f"{source.name}: {error}")
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    raise DataError(f"{specification.name} was not found.  Tried in order:\n{tried}\n{advice}")


def describe(dataset: str, sources: tuple[Source, ...]) -> list[SourceStatus]:
    """A glance at each source, without network access and without reading the data."""

    def glance(source: Source) -> SourceStatus:
        if source.needs_network:
            switch = offline_switch()
            detail = f"off: {switch} is set" if switch else "tried if nothing is found here"
            return SourceStatus(dataset, source.name, False, detail, needs_network=True)
        try:
            return SourceStatus(dataset, source.name, True, str(source.find()))
        except DataError as error:
            return SourceStatus(dataset, source.name, False, str(error))

    return [glance(source) for source in sources]


def find_in_folder(folder: Path, formats: Formats) -> Files:
    """The files of the first format found in `folder`, or in one of the places below it.

    Raises DataError if there are none, or only some of a set."""
    folder = folder.expanduser()
    if not folder.is_dir():
        came = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {came}, expected a folder with {formats.expected}; check its name")
    for place in (folder, *(folder / name for name in formats.places)):
        for find in formats.finders:
            files = find(place)
            if files is not None:
                return files
    raise DataError(f"{folder} has no data, expected {formats.expected}; put the files there under these names")


def find_in_cache(name: str, formats: Formats) -> Files:
    """Files that were downloaded for the data set `name` before.  Raises DataError if there are none."""
    folder = cache_folder() / name
    if not folder.is_dir():
        raise DataError(f"nothing was downloaded yet (no {folder})")
    return find_in_folder(folder, formats)


def find_in_system(name: str, formats: Formats) -> Files:
    """Files of a distribution's package: datasets/`name` in the system's data folders.  Raises DataError."""
    folders = [folder / "datasets" / name for folder in system_data_folders()]
    for folder in folders:
        if folder.is_dir():
            return find_in_folder(folder, formats)
    raise DataError(f"not installed (no {' or '.join(map(str, folders))})")


def system_data_folders() -> list[Path]:
    """XDG_DATA_DIRS, then the two folders that stand for it when it is unset (XDG Base Directory Specification).

    Those two always count: a desktop may set the variable without them, and packages install there all the same.
    """
    named = [*os.environ.get("XDG_DATA_DIRS", "").split(":"), "/usr/local/share", "/usr/share"]
    return list(dict.fromkeys(Path(folder) for folder in named if Path(folder).is_absolute()))


def cache_folder() -> Path:
    """HOSNN_CACHE if set, else .cache/hosnn in the home folder.  Raises DataError if neither exists."""
    named = os.environ.get("HOSNN_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "hosnn"
    except RuntimeError as error:
        raise DataError("there is no home folder to cache in; set HOSNN_CACHE to a folder") from error


def offline_switch() -> str | None:
    """The environment variable that forbids network access ("HOSNN_OFFLINE=1"), or None."""
    for name in ("HOSNN_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}:
            return f"{name}={os.environ[name]}"
    return None
