"""`hosnn doctor`."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from hosnn.cli.json_output import print_json
from hosnn.cli.options import console, console_for
from hosnn.data import cache
from hosnn.data.survey import DatasetFinding, survey_datasets
from hosnn.places import cache_folder, library_caches
from hosnn.provenance import machine, versions
from hosnn.spiking.kernels import cpu
from hosnn.spiking.kernels.backend import active

BACKENDS = {
    "cpu": "cpu (fused kernel in native code)",
    "triton": "triton (fused kernel for GPUs)",
    "eager": "eager (one torch operation after the other)",
}


def doctor(
    *,
    data_folder: Path | None = None,
    no_read: bool = False,
    clear_cache: bool = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Show what is installed, which data sets are found, where networks will run, and what to do about gaps.

    Data sets that are found are read and their hashes checked; --no-read only looks for their files.

    For example:

    hosnn doctor

    hosnn doctor --data-folder ~/data

    hosnn doctor --no-read

    hosnn doctor --clear-cache

    Args:
        data_folder: a folder with a subfolder per data set, named after it: it is looked into first.
        no_read: do not read the data sets that are found, which counts their images and checks their hashes.
        clear_cache: remove the decoded data sets that were kept to be read faster.
        json_output: print the same as JSON.
    """
    if clear_cache:
        freed = cache.clear()
        console_for(json_output).print(f"removed {freed / 1e6:,.0f} MB of decoded data from {cache.folder()}")
    findings = survey_datasets(not no_read, data_folder)
    facts: dict[str, str | int] = {**versions(), **machine()}
    kept = cache.entries()
    report = {
        "versions": versions(),
        "machine": machine(),
        "backend": BACKENDS[active(torch.device("cuda" if torch.cuda.is_available() else "cpu"))],
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "caches": ", ".join(dict.fromkeys([str(cache_folder()), *map(str, library_caches())])),
        "decoded_cache": f"{sum(path.stat().st_size for path in kept) / 1e6:,.0f} MB in {cache.folder()}",
        "data": [asdict(finding) for finding in findings],
        "advice": _advice(findings),
    }
    if json_output:
        print_json(report)
        return 0
    table = Table(show_header=False)
    for key, value in facts.items():
        table.add_row(key, str(value))
    for name in ("backend", "accelerator", "free_disk_gb", "caches", "decoded_cache"):
        table.add_row(name.replace("_", " "), str(report[name]))
    console.print(table)
    data_table = Table("data set", "found in", "images", "exact", "hash", "detail")
    for finding in findings:
        images = "" if finding.images is None else f"{finding.images:,}"
        data_table.add_row(finding.name, finding.source, images, finding.exact, finding.hash, finding.detail)
    console.print(data_table)
    for line in _advice(findings):
        console.print(f"[yellow]-[/] {line}")
    return 0


def _advice(findings: list[DatasetFinding]) -> list[str]:
    advice = []
    for finding in findings:
        if not finding.source:
            way = "it is downloaded on first use, or" if finding.downloadable else "to use it,"
            advice.append(f"{finding.name} is not on this machine; {way} give --data-folder")
    if cpu.library() is None:
        advice.append(
            "the native kernel was not built, so networks on the CPU run slower than they could: install GCC or "
            "Clang, then reinstall hosnn with pip install --force-reinstall --no-deps and the place it came from"
        )
    if not torch.cuda.is_available():
        advice.append("no CUDA device: networks run on the CPU")
    if shutil.disk_usage(Path.cwd()).free < 1e9:
        advice.append("less than 1 GB of disk is free here: checkpoints may not fit")
    return advice
