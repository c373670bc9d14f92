"""A data set together with all its sources."""

from dataclasses import dataclass
from pathlib import Path

from hosnn.data.dataset import Dataset
from hosnn.data.download import download_from_hub, fetch_file, find_in_hub_cache
from hosnn.data.sources import (
    DatasetFiles,
    FolderLayout,
    Source,
    find_in_cache,
    find_in_folder,
    find_in_system,
    load_files,
    load_first,
)
from hosnn.data.specification import Specification
from hosnn.places import cache_folder


@dataclass(frozen=True)
class PublishedDataset:
    """A data set's specification, the layout of its files and where they are published.

    advice   what the user can do when no source has it
    package  Debian's package is dataset-`package`, with files in datasets/`package`; "" if there is none
    hub      repository on the Hugging Face Hub, its train file and its test file; None if it is not there
    host     URL that the names in `files` are appended to
    files    the files to download from the host; each needs a published hash
    """

    specification: Specification
    layout: FolderLayout
    advice: str
    package: str = ""
    hub: tuple[str, str, str] | None = None
    host: str = ""
    files: tuple[str, ...] = ()

    def load(self, folder: Path | None) -> Dataset:
        """The data set from `folder` and nowhere else; for None, from the first source that has it.

        Raises DataError if the folder's files are absent, damaged or another data set; without a folder, if no source
        has it.
        """
        if folder is not None:
            return load_files(self.specification, find_in_folder(folder, self.layout), "folder")
        return load_first(self.specification, self.sources(), self.advice)

    def load_local(self, folder: Path | None = None) -> Dataset:
        """The data set from the first source on this machine that has it.  Raises DataError if none does.

        folder  see `sources`
        """
        local = tuple(source for source in self.sources(folder) if not source.needs_network)
        return load_first(self.specification, local, self.advice)

    def sources(self, folder: Path | None = None) -> tuple[Source, ...]:
        """The sources in the order they are tried: local ones, then the network, verifiable ones first.

        folder  one that has this data set in a subfolder named after it, tried before all others
        """
        local = [Source("hosnn cache", lambda: find_in_cache(self.specification.name, self.layout))]
        online = [Source("original host", self._download, needs_network=True)] if self.files else []
        if self.hub is not None:
            hub, known = self.hub, self.specification
            local.insert(0, Source("Hugging Face cache", lambda: find_in_hub_cache(*hub)))
            download = Source("Hugging Face Hub", lambda: download_from_hub(*hub), needs_network=True)
            online.insert(0 if known.sha256 is not None or known.verify is not None else 1, download)
        if self.package:
            debian = f"Debian package dataset-{self.package}"
            local.insert(0, Source(debian, lambda: find_in_system(self.package, self.layout)))
        if folder is not None:
            named = folder / self.specification.name
            local.insert(0, Source("data folder", lambda: find_in_folder(named, self.layout)))
        return (*local, *online)

    def _download(self) -> DatasetFiles:
        folder = cache_folder() / self.specification.name
        for name in self.files:
            fetch_file(self.host + name, folder / name, self.specification.published[name])
        return find_in_folder(folder, self.layout)
