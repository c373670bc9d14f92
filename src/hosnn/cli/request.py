"""The request for an evaluation as a value, from which other processes can prepare the same one."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hosnn.cli.options import check_measuring
from hosnn.cli.target import EvaluationTarget, load_networks, load_target, results_folder
from hosnn.data.catalogue import NAMES
from hosnn.data.own import absolute_source
from hosnn.deadline import Deadline, stopping
from hosnn.errors import ConfigError
from hosnn.evaluation.evaluate import evaluate_shard
from hosnn.evaluation.journal import journal_path
from hosnn.evaluation.requirements import check_weights
from hosnn.evaluation.runner import Shard
from hosnn.evaluation.setup import Names
from hosnn.evaluation.store import TEST, file_stem, of_split, with_samples
from hosnn.progress import Progress
from hosnn.protocols.builtin import protocol_by_name
from hosnn.protocols.protocol import Protocol
from hosnn.robustness.model import Model
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The options of `hosnn evaluate` that decide its result, and where the result goes."""

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
    attacks_only: bool = False
    split: str = TEST

    def for_worker(self, folder: Path, device: str) -> "EvaluationRequest":
        """The same for a worker in another working folder, which writes to `folder` and uses one core or one GPU."""
        return replace(
            self,
            model=_absolute(self.model),
            data=self.data and absolute_source(self.data, NAMES),
            data_folder=self.data_folder and self.data_folder.resolve(),
            transfer_sources=tuple(map(_absolute, self.transfer_sources)),
            out=folder.resolve(),
            hardware=replace(self.hardware, accelerator=device, threads=max(1, self.hardware.threads)),
        )


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluation:
    """An evaluation whose model, data and protocol are loaded and checked, ready for the first attack.

    network  the target's model on its device
    stem     name of the result's files in `folder`, without their endings
    options  further arguments of `hosnn.evaluation.evaluate.evaluate`
    """

    target: EvaluationTarget
    network: Model
    protocol: Protocol
    folder: Path
    stem: str
    device: str
    options: dict[str, Any]


def prepare(request: EvaluationRequest) -> PreparedEvaluation:
    """Load the model, its data and the protocol.  Raises ConfigError if they do not fit together."""
    networks = load_networks(request.transfer_sources)
    protocol = protocol_by_name(request.protocol, Threat.parse(request.threat), networks)
    hardware = request.hardware
    target = load_target(request.model, request.data, request.data_folder)
    target = replace(target, data=of_split(target.data, request.split))
    protocol = with_samples(protocol, target.data, request.samples)
    if request.attacks_only:
        protocol = protocol.without_checks()
    check_measuring(hardware)
    folder = results_folder(target, request.out)
    # Only an unchanged protocol on the default data gets the plain name, which `hosnn reproduce` looks for.
    stem = file_stem(protocol.name, request.threat, request.samples, request.seed, request.split)
    stem += "" if target.default_data else "-" + re.sub(r"[^\w.-]", "_", target.data.name)
    fabric = hardware.fabric()
    check_weights(target.model)
    network = target.model.to(fabric.device) if isinstance(target.model, nn.Module) else target.model
    options = {
        "names": Names(target.name, target.data.title, target.data.sha256),
        "seed": request.seed,
        "threads": (hardware.threads or os.cpu_count() or 1) if fabric.device.type == "cpu" else 0,
    }
    return PreparedEvaluation(
        target=target,
        network=network,
        protocol=protocol,
        folder=folder,
        stem=stem,
        device=fabric.device.type,
        options=options,
    )


def run_shard(request: EvaluationRequest, shard: Shard, deadline: Deadline, progress: Progress | None = None) -> Path:
    """Do one shard of an evaluation; returns its journal.  Raises Interrupted if the deadline comes first."""
    prepared = prepare(request)
    network = prepared.network
    if not isinstance(network, nn.Module):
        raise ConfigError(f"--shard needs an nn.Module; {request.model} is a {type(network).__name__}")
    journal = journal_path(prepared.folder, prepared.stem, (shard.number, shard.count))
    with stopping(deadline):
        evaluate_shard(
            network,
            prepared.target.data,
            prepared.protocol,
            shard,
            journal,
            **prepared.options,
            progress=progress,
            deadline=deadline,
        )
    return journal


def _absolute(source: Path) -> Path:
    """What names a model, for a process in another folder: paths become absolute, Hub ids and modules stay."""
    location, colon, function = str(source).rpartition(":")
    if colon and not source.exists():
        return Path(f"{Path(location).resolve()}:{function}") if location.endswith(".py") else source
    return source.resolve() if source.exists() else source
