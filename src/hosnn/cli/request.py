"""What an evaluation was asked for, as a value, so that other processes can get ready for the same one."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hosnn.cli.options import writable_folder
from hosnn.cli.subject import Candidate, candidate
from hosnn.cli.subject import transfer_sources as models_named
from hosnn.deadline import Deadline, stopping
from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate_shard
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.runner import Shard
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import file_stem, on_images_of
from hosnn.progress import Progress
from hosnn.protocols.builtin import protocol as protocol_named
from hosnn.protocols.protocol import Protocol
from hosnn.robustness.model import Model
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware


@dataclass(frozen=True)
class Request:
    """The options of `hosnn evaluate` that decide its result, and where it goes."""

    model: Path
    protocol: str
    threat: str
    samples: int | None
    seed: int
    data: str | None
    data_folder: Path | None
    transfer_sources: tuple[Path, ...]
    out: Path | None
    hardware: Hardware

    def elsewhere(self, folder: Path, device: str) -> "Request":
        """The same for a worker in another working folder, which writes to `folder` and uses one core or one GPU."""
        return replace(
            self,
            model=_absolute(self.model),
            data_folder=self.data_folder and self.data_folder.resolve(),
            transfer_sources=tuple(map(_absolute, self.transfer_sources)),
            out=folder.resolve(),
            hardware=replace(self.hardware, accelerator=device, threads=max(1, self.hardware.threads)),
        )


@dataclass(frozen=True)
class Ready:
    """All that is loaded, checked and laid out before the first attack.

    stem     what the result's files in `folder` are called
    options  of `hosnn.evaluation.evaluate`, for whoever runs the protocol
    """

    found: Candidate
    network: Model
    protocol: Protocol
    folder: Path
    stem: str
    device: str
    options: dict[str, Any]


def ready(request: Request) -> Ready:
    """Load the model, its data and the protocol.  Raises ConfigError for whatever does not fit."""
    named = protocol_named(request.protocol, Threat.parse(request.threat), models_named(request.transfer_sources))
    hardware = request.hardware
    found = candidate(request.model, request.data, request.data_folder)
    chosen = on_images_of(found.data, named, request.samples)
    if hardware.precision != "32-true":
        raise ConfigError(f"--precision got {hardware.precision!r}; robustness is measured in 32-true")
    folder = writable_folder(request.out or found.folder)
    # Only the protocol as it stands takes the plain name, which `hosnn reproduce` looks for.
    stem = file_stem(request.protocol, request.threat, request.samples, request.seed)
    stem += "" if found.usual else f"-{found.data.name}"
    fabric = hardware.fabric()
    network = found.model.to(fabric.device) if isinstance(found.model, nn.Module) else found.model
    options = {
        "names": Names(found.name, found.data.name, found.data.sha256),
        "seed": request.seed,
        "threads": (hardware.threads or os.cpu_count() or 1) if fabric.device.type == "cpu" else 0,
    }
    return Ready(found, network, chosen, folder, stem, fabric.device.type, options)


def share(request: Request, part: Shard, deadline: Deadline, progress: Progress | None = None) -> Path:
    """Do one share of an evaluation; returns where it is kept.  Raises Interrupted if the deadline comes first."""
    it = ready(request)
    if not isinstance(it.network, nn.Module):
        raise ConfigError(f"--shard needs an nn.Module; {request.model} is a {type(it.network).__name__}")
    kept = journal_path(it.folder, it.stem, (part.number, part.count))
    with stopping(deadline):
        evaluate_shard(
            it.network, it.found.data, it.protocol, part, kept, **it.options, progress=progress, deadline=deadline
        )
    return kept


def _absolute(source: Path) -> Path:
    """What names a model, for a process in another folder: paths become absolute, Hub ids and modules stay."""
    place, colon, function = str(source).rpartition(":")
    if colon and not source.exists():
        return Path(f"{Path(place).resolve()}:{function}") if place.endswith(".py") else source
    return source.resolve() if source.exists() else source
