"""`hosnn evaluate`."""

import os
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.markup import escape
from rich.table import Table
from torch import nn

from hosnn.cli.json_output import print_json
from hosnn.cli.options import DataArgument, Folder, Minutes, ModelArgument, console, console_for, deadline_after
from hosnn.cli.request import EvaluationRequest, PreparedEvaluation, prepare, run_shard
from hosnn.cluster.jobs import Cluster, Failed, Job, Stopped, run_jobs
from hosnn.deadline import Deadline, Interrupted, stopping
from hosnn.errors import ConfigError
from hosnn.estimators import Through, has_spiking_layers
from hosnn.evaluation.evaluate import evaluate as run_protocol
from hosnn.evaluation.examples import Example, attacked_examples
from hosnn.evaluation.journal import journal_path, remove_journals
from hosnn.evaluation.runner import Shard
from hosnn.evaluation.store import DEFAULT_THREAT_NAME, TEST, save_result
from hosnn.files import write_text
from hosnn.progress import Progress, TerminalProgress
from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.results.check import tally
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval
from hosnn.robustness.pgd import PGD
from hosnn.runtime import Hardware
from hosnn.spiking.gradient_rule import bptt

STATUS = {"none": 0, "pass": 0, "warn": 3, "fail": 4}
"""Exit status by the verdict of the checks."""

MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}


def evaluate(
    model: ModelArgument,
    *,
    protocol: str = "smoke",
    attacks_only: bool = False,
    threat: str = DEFAULT_THREAT_NAME,
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    seed: int = 0,
    split: str = TEST,
    data: DataArgument = None,
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

    MODEL is a run folder, a checkpoint folder, the name of a network in the package (cifar10-robust), a Hub id, or a
    model of your own: file.py:function or module:function, which is a network, or a function without arguments that
    returns one.  A network is an nn.Module or any function from images in [0, 1] to logits.

    Protocols: smoke (a first impression, a minute), quick (three strong attacks, for screening), standard (for a number
    to publish, minutes to half an hour), full (everything, hours), paper (the HoSNN authors' attacks, for comparison
    with published numbers only), choices (their PGD-7 with each of their choices switched off), sweep (PGD-40 through
    five surrogate widths).

    Exit status: 0 all checks passed (--attacks-only runs none), 3 a check warns, 4 a check failed and the number must
    not be believed; 1 the time limit was reached, 2 an error to correct.  An interrupted evaluation resumes when the
    same command is given again.

    For example:

    hosnn evaluate runs/demo/demo-homeostatic-fgsm

    hosnn evaluate runs/demo/demo-homeostatic-fgsm --protocol standard --transfer-sources runs/demo/demo-lif-fgsm

    hosnn evaluate my_network.py:trained --data fashion-mnist --protocol standard

    hosnn evaluate MODEL --protocol full --shard 0/4    (and 1/4 .. 3/4 elsewhere; then once without --shard)

    hosnn evaluate MODEL --protocol full --shards 16 --address auto    (on a Ray cluster, shards gathered at the end)

    Args:
        model: a run folder, a checkpoint folder, a network of the package, a Hub id, file.py:function or
            module:function.
        protocol: smoke, quick, standard, full, paper, choices or sweep; events for recordings of event cameras.
        attacks_only: the protocol's worst case without its panels and checks, in less time; the result and its files
            are called "PROTOCOL, attacks only".
        threat: norm:eps with norm linf, l2 or l1, e.g. linf:8/255; /step after it perturbs every time step, @8bit at
            the end allows adversarial images of 8 bits only; events:N/MAXIMUM changes at most N events of a recording.
        samples: number of test images, a fixed class-balanced choice; the protocol's own number if not given.
        seed: seed of random starts.
        split: test, or validation to choose between networks without a look at the test images.
        data: data set; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
        transfer_sources: other models, given like MODEL, to transfer attacks from (standard and full).
        out: folder for PROTOCOL.json, .md and .html (file names also contain options that differ from the protocol's);
            MODEL/evaluations if not given, runs/FILE-FUNCTION/evaluations for a model of your own.
        shard: evaluate only shard I (from 0) of N shards of the images; the same command without it merges all shards.
        shards: divide the images into N shards for workers of Ray (pip install 'hosnn[ray]'), then merge the results.
        address: head of a Ray cluster for --shards, or auto for the one that this machine belongs to; this machine if
            not given.  All machines of the cluster must see MODEL and --out under the same path.
        max_time: stop after this many minutes; the same command resumes.
        hardware: what to run on; --threads is the number of blocks of images worked on at a time (0: one per core).
        json_output: print the result as JSON and nothing else.
    """
    request = EvaluationRequest(
        model=model,
        protocol=protocol,
        threat=threat,
        samples=samples,
        seed=seed,
        data=data,
        data_folder=data_folder,
        transfer_sources=transfer_sources,
        out=out,
        hardware=hardware,
        attacks_only=attacks_only,
        split=split,
    )
    own_shard = _shard(shard)
    if shards is not None and shards < 1:
        raise ConfigError(f"--shards got {shards}; expected at least 1")
    if (own_shard is not None and (shards, address) != (None, None)) or (address is not None and shards is None):
        raise ConfigError(
            f"--shard got {shard}, --shards {shards}, --address {address}; expected --shard I/N alone, or --shards N "
            "with or without --address"
        )
    deadline, progress = deadline_after(max_time), TerminalProgress(console_for(json_output))
    if own_shard is not None:
        journal = run_shard(request, own_shard, deadline, progress)
        message = f"shard {shard} is done: {journal}; gather all with the command without --shard"
        console_for(json_output).print(escape(message))
        return 0
    prepared = prepare(request)
    if shards is not None:
        _run_shards(request, prepared, shards, address, deadline, progress)
    result = _run_protocol(prepared, deadline, progress)
    stem, classes = prepared.folder / prepared.stem, prepared.target.data.classes
    write_text(Path(f"{stem}.md"), markdown_evaluation(result, classes))
    write_text(Path(f"{stem}.html"), render_evaluation(result, _examples(prepared, result, seed), classes))
    if json_output:
        print_json(result.to_json())
        return STATUS[result.verdict]
    console.print(_attack_table(result))
    console.print(_check_table(result))
    console.print(f"written to {escape(str(stem))}.json, .md and .html")
    return STATUS[result.verdict]


def _run_protocol(prepared: PreparedEvaluation, deadline: Deadline, progress: Progress) -> Evaluation:
    """Evaluate and save the result, then remove the journals.  Raises Interrupted if the deadline comes first."""
    journal = journal_path(prepared.folder, prepared.stem)
    kept = journal if isinstance(prepared.network, nn.Module) else None
    try:
        with stopping(deadline):
            result = run_protocol(
                prepared.network,
                prepared.target.data,
                prepared.protocol,
                journal=kept,
                **prepared.options,
                progress=progress,
                deadline=deadline,
            )
    except Interrupted as stop:
        raise Interrupted(stop.place, deadline, kept=kept is not None) from stop
    save_result(result, prepared.folder / f"{prepared.stem}.json")
    remove_journals(journal)
    return result


def _run_shards(
    request: EvaluationRequest,
    prepared: PreparedEvaluation,
    count: int,
    address: str | None,
    deadline: Deadline,
    progress: Progress,
) -> None:
    """Have workers do all shards, each with its journal in the result's folder.  Raises Interrupted when stopped."""
    if not isinstance(prepared.network, nn.Module):
        raise ConfigError(f"--shards needs an nn.Module; {request.model} is a {type(prepared.network).__name__}")
    for_worker = request.for_worker(prepared.folder, prepared.device)
    cores = for_worker.hardware.threads
    workers = min(count, max(1, (os.cpu_count() or 1) // cores))
    cluster = Cluster(workers, address, cores, gpus=float(prepared.device == "cuda"))
    jobs = [Job(f"shard {number}/{count}", run_shard, (for_worker, Shard(number, count))) for number in range(count)]
    errors: dict[str, str] = {}  # the first shard of each error
    done = 0
    with progress.task(f"{prepared.target.name}, {prepared.protocol.name}", count) as bar:
        for name, outcome in run_jobs(jobs, cluster, deadline):
            if isinstance(outcome, Failed):
                errors.setdefault(outcome.error, name)
            elif not isinstance(outcome, Stopped):
                done += 1
                bar.advance()
                bar.report(f"{name} is done")
    if errors:
        raise ConfigError("; ".join(f"{name}: {error}" for error, name in errors.items()))
    if done < count:
        raise Interrupted(f"{done} of {count} shards are done", deadline)


def _shard(text: str | None) -> Shard | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise ConfigError(f"--shard got {text!r}; expected I/N with 0 <= I < N, e.g. 0/4")
    return Shard(int(number), int(count))


def _examples(prepared: PreparedEvaluation, result: Evaluation, seed: int) -> tuple[Example, ...]:
    """A few attacked images for the page; none of a model without a gradient."""
    target, threat = prepared.target, prepared.protocol.threat
    if not isinstance(target.model, nn.Module) or not result.network.gradient or threat.per_step:
        return ()
    if target.data.steps is not None:  # frames of events are no picture to show an attack on
        return ()
    with torch.random.fork_rng():
        return attacked_examples(
            target.model,
            target.data.test.subset(min(200, len(target.data.test))),
            Through(bptt(), PGD(threat)) if has_spiking_layers(target.model) else PGD(threat),
            count=5,
            seed=seed,
            network=target.name,
            classes=target.data.classes,
        )


def _check_table(result: Evaluation) -> Table:
    """The checks that warn or fail; a title alone if all passed."""
    not_passed = [check for check in result.checks if check.severity != "pass"]
    passed = len(result.checks) - len(not_passed)
    title = f"checks: {passed} of {len(result.checks)} passed" if result.checks else tally(result.checks)
    table = Table(title=title, show_header=bool(not_passed))
    for heading in ("", "check", "measured", "what it means"):
        table.add_column(heading)
    for check in not_passed:
        table.add_row(MARKS[check.severity], escape(check.name), escape(check.figure), escape(check.meaning))
    return table


def _attack_table(result: Evaluation) -> Table:
    table = Table(title=escape(result.title))
    for heading in ("attack", "accuracy", "95 % interval", "seconds"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    table.add_row("none", f"{result.clean_accuracy:.2%}", _interval(result.interval()), "")
    for row in result.rows:
        accuracy, interval = result.accuracy(row.attack), result.interval(row.attack)
        table.add_row(escape(row.attack), f"{accuracy:.2%}", _interval(interval), f"{row.seconds:.0f}")
    worst = (f"[bold]{result.worst_case:.2%}", _interval(result.worst_interval), f"{result.seconds:.0f}")
    table.add_row("[bold]worst case per sample", *worst)
    return table


def _interval(interval: Interval) -> str:
    return f"{interval.low:.1%} .. {interval.high:.1%}"
