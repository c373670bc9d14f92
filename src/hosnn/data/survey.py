"""Which data sets are on this machine, and what is known of them."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hosnn.data.catalogue import describe_sources, load_local
from hosnn.data.specification import Verified
from hosnn.errors import DataError

HASHES = {
    Verified.PIXELS: "right (pixels and labels)",
    Verified.LABELS: "right (labels only)",
    Verified.NOTHING: "none published",
}


@dataclass(frozen=True, kw_only=True)
class DatasetFinding:
    """One data set.

    source  where its files are, "" if nowhere
    images  how many, of all splits; None if not read
    exact   whether every image has its original pixels: "yes", or how many do not; "" if not read
    hash    whether it is the published content, "wrong" if it is not; "" if not read
    detail  the files, what is wrong with them, or where it was looked for
    downloadable  whether it is fetched on first use
    """

    name: str
    source: str = ""
    images: int | None = None
    exact: str = ""
    hash: str = ""
    detail: str = ""
    downloadable: bool = False


def survey_datasets(read: bool = True, folder: Path | None = None) -> list[DatasetFinding]:
    """Every data set by name; without `read` only whether its files are there.  Uses no network.

    folder  one with a subfolder per data set, named after it, which is tried before all other sources
    """
    findings = []
    for name, group in groupby(describe_sources(folder), key=lambda status: status.dataset):
        statuses = list(group)
        found = next((status for status in statuses if status.found), None)
        online = any(status.needs_network for status in statuses)
        if found is None:
            details = "; ".join(f"{status.source}: {status.detail}" for status in statuses if not status.needs_network)
            findings.append(DatasetFinding(name=name, detail=details, downloadable=online))
        elif read:
            findings.append(_read(name, found.source, found.detail, folder))
        else:
            findings.append(DatasetFinding(name=name, source=found.source, detail=found.detail))
    return findings


def _read(name: str, source: str, detail: str, folder: Path | None) -> DatasetFinding:
    try:
        data = load_local(name, folder)
    except DataError as error:
        return DatasetFinding(name=name, source=source, hash="wrong, or damaged", detail=str(error))
    exact = f"all but {data.lossy:,}" if data.lossy else "yes"
    source, _, detail = data.source.partition(": ")  # another than the first one found if that is damaged
    return DatasetFinding(
        name=name, source=source, images=len(data), exact=exact, hash=HASHES[data.verified], detail=detail
    )
