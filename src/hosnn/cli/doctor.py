"""`hosnn doctor`."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from hosnn.cli.options import console
from hosnn.data import SourceStatus, describe_sources
from hosnn.provenance import machine, versions
from hosnn.spiking.kernels import cpu
from hosnn.spiking.kernels.backend import active

BACKENDS = {
    "cpu": "cpu (fused kernel in native code)",
    "triton": "triton (fused kernel for GPUs)",
    "eager": "eager (one torch operation after the other)",
}


def doctor(*, json_output: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Show what is installed, which data sets are found, where networks will run, and what to do about gaps.

    For example:

    hosnn doctor

    Args:
        json_output: print the same as JSON.
    """
    sources = describe_sources()
    facts: dict[str, str | int] = {**versions(), **machine()}
    findings = {
        "versions": versions(),
        "machine": machine(),
        "backend": BACKENDS[active(torch.device("cuda" if torch.cuda.is_available() else "cpu"))],
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "data": [vars(source) for source in sources],
        "advice": _advice(sources),
    }
    if json_output:
        print(json.dumps(findings))
        return 0
    table = Table(show_header=False)
    for key, value in facts.items():
        table.add_row(key, str(value))
    for name in ("backend", "accelerator", "free_disk_gb"):
        table.add_row(name.replace("_", " "), str(findings[name]))
    console.print(table)
    data_table = Table("data set", "source", "here", "detail")
    for source in sources:
        data_table.add_row(source.dataset, source.source, "[green]yes" if source.found else "[yellow]no", source.detail)
    console.print(data_table)
    for line in _advice(sources):
        console.print(f"[yellow]-[/] {line}")
    return 0


def _advice(sources: list[SourceStatus]) -> list[str]:
    advice = []
    for name in sorted({source.dataset for source in sources}):
        of_dataset = [source for source in sources if source.dataset == name]
        if not any(source.found for source in of_dataset):
            remedy = (
                "it is downloaded on first use, or"
                if any(source.needs_network for source in of_dataset)
                else "to use it,"
            )
            advice.append(f"{name} is not on this machine; {remedy} give --data-folder")
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
