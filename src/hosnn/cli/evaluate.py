"""`hosnn evaluate`."""

import json
import os
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.markup import escape
from rich.table import Table
from torch import nn

from hosnn.cli.options import (
    Folder,
    Minutes,
    Model,
    Name,
    console,
    console_for,
    deadline,
)
from hosnn.cli.request import Ready, Request, ready, share
from hosnn.cli.subject import Candidate
from hosnn.cluster.tasks import Cluster, Failed, Job, Stopped, run_jobs
from hosnn.deadline import Deadline, Interrupted, stopping
from hosnn.errors import ConfigError
from hosnn.estimators import Through
from hosnn.evaluation.evaluate import evaluate as run_protocol
from hosnn.evaluation.examples import Example, examples
from hosnn.evaluation.journal import journal_path, journals
from hosnn.evaluation.runner import Shard
from hosnn.evaluation.store import USUAL_THREAT
from hosnn.files import write_text
from hosnn.progress import Progress, TerminalProgress
from hosnn.protocols.protocol import Protocol
from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.pgd import PGD
from hosnn.runtime import Hardware
from hosnn.spiking.gradient_rule import bptt

STATUS = {"pass": 0, "warn": 3, "fail": 4}
MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}


def evaluate(
    model: Model,
    *,
    protocol: str = "smoke",
    threat: str = USUAL_THREAT,
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    seed: int = 0,
    data: Name = None,
    data_folder: Folder = None,
    transfer_sources: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MODEL")] = (),
    out: Folder = None,
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None,
    shards: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Attack a trained network under a protocol; write JSON, Markdown and an HTML page.

    MODEL is a run folder, a checkpoint folder, a Hub id, or a model of your own: file.py:function or module:function,
    a network, or a function without arguments that returns one (or any function), from images in [0, 1] to logits.

    Protocols: smoke (a first look, a minute), standard (for a number to publish, minutes to half an hour), full
    (everything, hours), paper (the HoSNN authors' attacks, for comparison with published numbers only), choices (their
    PGD-7 with each of their choices switched off), sweep (PGD-40 through five surrogate widths).

    Exit status: 0 all checks passed, 3 a check warns, 4 a check failed and the number must not be believed; 1 the time
    was up, 2 something to mend.  An interrupted evaluation goes on when the same command is given again.

    For example:

    hosnn evaluate runs/demo/demo-homeostatic-fgsm

    hosnn evaluate models/fashion-mnist/homeostatic-fgsm --protocol standard --twins models/fashion-mnist/lif-fgsm

    hosnn evaluate my_network.py:trained --data fashion-mnist --protocol standard

    hosnn evaluate MODEL --protocol full --shard 0/4    (and 1/4 .. 3/4 elsewhere; then once without --shard)

    hosnn evaluate MODEL --protocol full --shards 16 --address auto    (the same on a Ray cluster, gathered at the end)

    Args:
        model: a run folder, a checkpoint folder, a Hub id, file.py:function or module:function.
        protocol: smoke, standard, full, paper, choices or sweep.
        threat: norm:eps with norm linf, l2 or l1, e.g. linf:8/255; /step after it perturbs every time step.
        samples: number of test images, a fixed class-balanced choice; the protocol's own number if not given.
        seed: seed of random starts.
        data: data set; the one the network was trained on if not given.
        data_folder: where the data set lies, if not in one of its usual places.
        twins: other models, named as MODEL is, to transfer attacks from (standard and full).
        out: folder for PROTOCOL.json, .md and .html (options other than the protocol's own show in the name);
            MODEL/evaluations if not given, runs/FILE-FUNCTION/evaluations for a model of your own.
        shard: do share I (from 0) of N only; the command without it gathers all shares that lie in the same folder.
        shards: have N shares done by workers of Ray (pip install 'hosnn[ray]'), then gather them; the same result.
        address: head of a Ray cluster for --shards, or auto for the one that this machine belongs to; else this
            machine.  All its machines must see model and --out under the same path.
        max_time: stop after this many minutes; the same command goes on.
        hardware: where to run; --threads is the number of images' blocks worked on at a time (0: one per core).
        json_output: print the result as JSON and nothing else.
    """
    request = Request(model, protocol, threat, samples, seed, data, data_folder, transfer_sources, out, hardware)
    part = _shard(shard)
    if shards is not None and shards < 1:
        raise ConfigError(f"--shards got {shards}; expected at least 1")
    if (part is not None and (shards, address) != (None, None)) or (address is not None and shards is None):
        raise ConfigError(
            f"--shard got {shard}, --shards {shards}, --address {address}; expected --shard I/N alone, or --shards N "
            "with or without --address"
        )
    limit, progress = deadline(max_time), TerminalProgress(console_for(json_output))
    if part is not None:
        kept_share = share(request, part, limit, progress)
        done = f"share {shard} is done: {kept_share}; gather all with the command without --shard"
        console_for(json_output).print(escape(done))
        return 0
    it = ready(request)
    if shards is not None:
        _hand_out(request, it, shards, address, limit, progress)
    partial = journal_path(it.folder, it.stem)
    kept = partial if isinstance(it.network, nn.Module) else None
    try:
        with stopping(limit):
            result = run_protocol(
                it.network, it.found.data, it.protocol, partial=kept, **it.options, progress=progress, deadline=limit
            )
    except Interrupted as stop:
        raise Interrupted(stop.place, limit, kept=kept is not None) from stop
    result.save(it.folder / f"{it.stem}.json")
    for path in journals(partial):
        path.unlink(missing_ok=True)
    write_text(it.folder / f"{it.stem}.md", markdown_evaluation(result, it.found.data.classes))
    page = render_evaluation(result, _examples(it.found, it.protocol, result, seed), it.found.data.classes)
    write_text(it.folder / f"{it.stem}.html", page)
    if json_output:
        print(json.dumps(result.to_json()))
        return STATUS[result.verdict]
    console.print(_table(result))
    console.print(_findings(result))
    console.print(f"written to {escape(str(it.folder / it.stem))}.json, .md and .html")
    return STATUS[result.verdict]


def _hand_out(
    request: Request,
    it: Ready,
    count: int,
    address: str | None,
    limit: Deadline,
    progress: Progress,
) -> None:
    """Have workers do all shares, each kept where whoever gathers them looks.  Raises Interrupted when stopped."""
    if not isinstance(it.network, nn.Module):
        raise ConfigError(f"--shards needs an nn.Module; {request.model} is a {type(it.network).__name__}")
    distant = request.elsewhere(it.folder, it.device)
    cores = distant.hardware.threads
    workers = min(count, max(1, (os.cpu_count() or 1) // cores))
    cluster = Cluster(workers, address, cores, gpus=float(it.device == "cuda"))
    tasks = [Job(f"share {number}/{count}", share, (distant, Shard(number, count))) for number in range(count)]
    errors: dict[str, str] = {}
    done = 0
    with progress.task(f"{it.found.name}, {request.protocol}", count) as bar:
        for name, outcome in run_jobs(tasks, cluster, limit):
            if isinstance(outcome, Failed):
                errors.setdefault(outcome.error, name)
            elif not isinstance(outcome, Stopped):
                done += 1
                bar.advance()
                bar.report(f"{name} is done")
    if errors:
        raise ConfigError("; ".join(f"{name}: {error}" for error, name in errors.items()))
    if done < count:
        raise Interrupted(f"{done} of {count} shares are done", limit)


def _shard(text: str | None) -> Shard | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise ConfigError(f"--shard got {text!r}; expected I/N with 0 <= I < N, e.g. 0/4")
    return Shard(int(number), int(count))


def _examples(found: Candidate, chosen: Protocol, result: Evaluation, seed: int) -> tuple[Example, ...]:
    """A few attacked images for the page; none of a model without a gradient."""
    if not isinstance(found.model, nn.Module) or not result.network.gradient:
        return ()
    attack = Through(bptt(), PGD(chosen.threat))
    if chosen.threat.per_step:
        return ()
    with torch.random.fork_rng():
        return examples(
            found.model,
            found.data.test.take(200),
            attack,
            count=5,
            seed=seed,
            network=found.name,
            classes=found.data.classes,
        )


def _findings(result: Evaluation) -> Table:
    """The checks that did not pass, or that all did."""
    raised = [check for check in result.checks if check.severity != "pass"]
    passed = len(result.checks) - len(raised)
    table = Table(title=f"checks: {passed} of {len(result.checks)} passed", show_header=bool(raised))
    for heading in ("", "check", "measured", "what it means"):
        table.add_column(heading)
    for check in raised:
        table.add_row(MARKS[check.severity], escape(check.name), escape(check.figure), escape(check.meaning))
    return table


def _table(result: Evaluation) -> Table:
    table = Table(title=escape(f"{result.model}: {result.samples:,} images of {result.dataset}, {result.threat}"))
    for heading in ("attack", "accuracy", "95 % interval", "seconds"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    low, high = result.interval()
    table.add_row("none", f"{result.clean_accuracy:.2%}", f"{low:.1%} .. {high:.1%}", "")
    for row in result.rows:
        low, high = result.interval(row.attack)
        table.add_row(
            escape(row.attack), f"{result.accuracy(row.attack):.2%}", f"{low:.1%} .. {high:.1%}", f"{row.seconds:.0f}"
        )
    low, high = result.worst_interval
    table.add_row(
        "[bold]worst case per sample",
        f"[bold]{result.worst_case:.2%}",
        f"{low:.1%} .. {high:.1%}",
        f"{result.seconds:.0f}",
    )
    return table
