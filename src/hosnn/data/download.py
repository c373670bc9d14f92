"""Downloads: the Hugging Face Hub with its cache, and single files verified by their hash before they appear."""

import http.client
import urllib.request
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hosnn.data.hashes import hash_of, kind_of
from hosnn.data.parquet import ParquetFiles
from hosnn.errors import DataError
from hosnn.files import replacing

TIMEOUT_SECONDS = 5.0  # per address of a host, and per stall
CHUNK = 1 << 18
LARGEST_FILE = 1 << 30  # bytes; a server that never stops sending does not fill the disk


def find_in_hub_cache(repository: str, train: str, test: str) -> ParquetFiles:
    """The Parquet files `train` and `test` of a data set that huggingface_hub has cached.  Raises DataError."""
    # Imported where used: most runs find their data elsewhere, and the client is slow to load.
    # Not hf_hub_download(local_files_only=True): that one still asks the Hub for a list of agents to report.
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repository, name, repo_type="dataset") for name in (train, test)]
    found = [Path(path) for path in paths if isinstance(path, str)]
    if len(found) < len(paths):
        raise DataError(f"{repository} is not in it")
    return ParquetFiles(train=(found[0],), test=(found[1],))


def download_from_hub(repository: str, train: str, test: str) -> ParquetFiles:
    """The same files, downloaded into huggingface_hub's cache.  Raises DataError if that fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    def fetch(name: str) -> Path:
        # hf_hub_download retries an unreachable host for minutes; one request without retries finds out first.
        url = hf_hub_url(repository, name, repo_type="dataset")
        get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS, token=False)
        return Path(hf_hub_download(repository, name, repo_type="dataset", token=False))

    try:
        return ParquetFiles(train=(fetch(train),), test=(fetch(test),))
    except Exception as error:  # the client lets errors of several HTTP libraries through, which differ by version
        raise DataError(f"{repository} cannot be downloaded: {_first_line(error)}") from error


def fetch_file(url: str, target: Path, published: str) -> None:
    """Download `url` to `target`, which appears whole and verified or not at all; a verified `target` is kept.

    published  the file's MD5 or SHA-256
    Raises DataError if the host cannot be reached within seconds, stalls, or sends something else.
    """
    if target.is_file() and hash_of(target, published) == published:
        return
    try:
        with replacing(target) as partial:
            with partial.open("wb") as file:
                _copy(url, file, target.name)
            received = hash_of(partial, published)
            if received != published:
                raise DataError(
                    f"{url} sent a file with {kind_of(published)} {received}, expected {published}; something else "
                    "answers there"
                )
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be downloaded to {target.parent}: {_first_line(error)}") from error


def _copy(url: str, file: IO[bytes], label: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        length = response.headers.get("Content-Length", "")
        task = progress.add_task(label, total=int(length) if length.isdigit() else None)
        received = 0
        while chunk := response.read(CHUNK):
            received += len(chunk)
            if received > LARGEST_FILE:
                raise DataError(f"{url} sends more than {LARGEST_FILE} bytes; something else answers there")
            file.write(chunk)
            progress.update(task, advance=len(chunk))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
