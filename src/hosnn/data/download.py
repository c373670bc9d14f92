"""Downloads: the Hugging Face Hub and its cache, and single files verified by their hash."""

import http.client
import urllib.request
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hosnn.data.hashes import file_hash, hash_name
from hosnn.data.parquet import ParquetFiles
from hosnn.errors import DataError
from hosnn.files import replacing

TIMEOUT_SECONDS = 5.0  # per address of a host, and per stall
CHUNK = 1 << 18
LARGEST_FILE = 1 << 30  # bytes; a server that never stops sending must not fill the disk


def find_in_hub_cache(repository: str, train: str, test: str) -> ParquetFiles:
    """The Parquet files `train` and `test` of a repository in huggingface_hub's cache.  Raises DataError if absent."""
    # Imported here: most runs read their data elsewhere, and the client is slow to load.
    # Not hf_hub_download(local_files_only=True), which still sends a request to the Hub.
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repository, name, repo_type="dataset") for name in (train, test)]
    cached = [Path(path) for path in paths if isinstance(path, str)]
    if len(cached) < len(paths):
        raise DataError(f"{repository} is not in it")
    return ParquetFiles(train=(cached[0],), test=(cached[1],))


def download_from_hub(repository: str, train: str, test: str) -> ParquetFiles:
    """The same files, downloaded into huggingface_hub's cache.  Raises DataError if that fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    def fetch(name: str) -> Path:
        # hf_hub_download retries an unreachable host for minutes; one request without retries fails at once.
        url = hf_hub_url(repository, name, repo_type="dataset")
        get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS, token=False)
        return Path(hf_hub_download(repository, name, repo_type="dataset", token=False))

    try:
        return ParquetFiles(train=(fetch(train),), test=(fetch(test),))
    except Exception as error:  # the client passes on errors of several HTTP libraries, which differ by version
        raise DataError(f"{repository} cannot be downloaded: {_first_line(error)}") from error


def fetch_file(url: str, target: Path, published: str) -> None:
    """Download `url` to `target`, which is created only once complete and verified; a verified `target` is kept.

    published  the file's MD5 or SHA-256
    Raises DataError if the host cannot be reached within seconds, stalls, or sends something else.
    """
    if target.is_file() and file_hash(target, published) == published:
        return
    try:
        with replacing(target) as partial:
            with partial.open("wb") as file:
                _copy(url, file, target.name)
            actual = file_hash(partial, published)
            if actual != published:
                raise DataError(
                    f"{url} sent a file with {hash_name(published)} {actual}, expected {published}; something else "
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
