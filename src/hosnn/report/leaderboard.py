"""A leaderboard as Markdown: evaluations that `hosnn evaluate` wrote, and numbers that others report.

An entry is NAME/*.json in the leaderboard's folder, or a result of `ALSO`, which a page of its own shows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosnn.results.evaluation import Evaluation
from hosnn.results.text import percent, table_row

ALSO = (
    "fashion-mnist/standard",
    "fashion-mnist-robust/standard",
    "fashion-mnist-robust-32/standard",
    "cifar10-small/standard",
    "cifar10-robust/standard",
    "cifar100-robust/standard",
)
"""Folders of docs/results whose evaluations are entries too."""

KINDS = {"hosnn": "spiking", "foreign": "spiking", "none": "ANN", "unknown": "unknown"}
"""What the table calls a network, by what the evaluation found of its spikes."""

HEADS = ("network", "kind", "clean", "robust", "under", "images", "source")
MEASURED = ("standard", "standard, attacks only", "full", "full, attacks only")


VALIDATION_IMAGES = "validation images"
"""What the title of a data set says where its test images were not looked at."""


@dataclass(frozen=True)
class Entry:
    """One row: accuracies in percent, `robust` with its 95 % interval where it was measured here."""

    data: str
    threat: str
    network: str
    kind: str
    clean: str
    robust: str
    under: str
    images: str
    source: str
    value: float


def leaderboard(folder: Path) -> str:
    """A table for each data set and threat, the most robust network first; those that others report come last."""
    entries = [*measured(folder), *reported(folder / "reported.json")]
    lines = []
    for data, threat in sorted({(entry.data, entry.threat) for entry in entries}):
        rows = [entry for entry in entries if (entry.data, entry.threat) == (data, threat)]
        rows.sort(key=lambda entry: (not entry.images, -entry.value))
        lines += [f"### {data}, {threat}", "", table_row(HEADS), "| --- | --- | ---: | ---: | --- | ---: | --- |"]
        for row in rows:
            lines.append(table_row([getattr(row, head) for head in HEADS]))
        lines.append("")
    return "\n".join(lines)


def measured(folder: Path) -> Iterator[Entry]:
    """Entries from results of `standard` and `full`; a failed check is named beside the number."""
    for root in (folder, *(folder.parent / name for name in ALSO)):
        for path in sorted(root.glob("*/*.json")):
            result = Evaluation.load(path)
            if result.protocol not in MEASURED or result.worst_case is None:
                continue
            low, high = (100 * end for end in result.worst_interval or (0, 0))
            failed = [check.name for check in result.checks if check.severity == "fail"]
            doubt = f"; fails: {', '.join(failed)}" if failed else "" if result.checks else "; without checks"
            yield Entry(
                data=_data(result.dataset),
                threat=result.threat,
                network=result.model,
                kind=KINDS[result.network.spiking],
                clean=percent(result.clean_accuracy),
                robust=f"{percent(result.worst_case)} [{low:.1f}, {high:.1f}]",
                under=f"`{result.protocol}`{doubt}",
                images=f"{result.samples:,}",
                source="measured here",
                value=100 * result.worst_case,
            )


def _data(title: str) -> str:
    """The data set's name without remarks, but for the one that it is not the test split."""
    name, *remarks = title.split(", ")
    return ", ".join([name.removesuffix(" (unverified)"), *(it for it in remarks if it == VALIDATION_IMAGES)])


def reported(path: Path) -> Iterator[Entry]:
    """Entries of reported.json."""
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        yield Entry(
            data=row["data"],
            threat=row["threat"],
            network=row["network"],
            kind="ANN" if row["network"].startswith("ANN") else "spiking",
            clean="" if row["clean"] is None else str(row["clean"]),
            robust=str(row["robust"]),
            under=row["attack"],
            images="",
            source=f"reported: {row['source']}",
            value=row["robust"],
        )
