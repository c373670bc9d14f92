"""`hosnn sweep`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from hosnn.cli.json_output import print_json
from hosnn.cli.options import DataArgument, Folder, Minutes, Name, console_for, deadline_after, writable_folder
from hosnn.cluster.jobs import Cluster, Failed, Job, run_jobs
from hosnn.cluster.record import EvaluationSummary, Sweep, TrialResult
from hosnn.cluster.tables import failures, markdown_sweep, rich_sweep
from hosnn.cluster.trials import Trial, starts, trials
from hosnn.cluster.work import Conditions, run_trial, train_start
from hosnn.data import load_dataset
from hosnn.data.catalogue import NAMES
from hosnn.data.own import absolute_source
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError
from hosnn.evaluation.store import DEFAULT_THREAT_NAME, TEST, checked_split, keep
from hosnn.files import write_text
from hosnn.progress import TerminalProgress
from hosnn.protocols.builtin import protocol_by_name
from hosnn.robustness.threats import Threat
from hosnn.runtime import Hardware, check_threads
from hosnn.training.run_lock import exclusive

START = "start: "
"""Prefix of the names of jobs that train what trials start from."""


def sweep(
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = (),
    *,
    grid: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    seeds: tuple[int, ...] = (0,),
    protocol: Name = None,
    threat: str = DEFAULT_THREAT_NAME,
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    split: str = TEST,
    runs: Path = Path("runs"),
    out: Folder = None,
    data: DataArgument = None,
    data_folder: Folder = None,
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None,
    gpus_per_trial: float = 0.0,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Train every recipe with every combination of values and every seed, and evaluate the networks, on Ray.

    A trial whose worker is killed resumes from its last checkpoint on another worker.  Whatever stopped a sweep, the
    same command resumes it; finished trials are not repeated.  Needs pip install 'hosnn[ray]'.

    Ray runs on this machine's cores unless --address names a cluster.  Then --runs and --out (and --data-folder) must
    be on a file system that all its machines see under the same path, and each needs the same version of hosnn.

    Exit status: 0 all trials are finished, 1 the time limit was reached, 2 some trials failed (they are listed) or
    there is an error to correct, 128 + signal if stopped by one.

    For example:

    hosnn sweep demo:lif_fgsm demo:homeostatic_fgsm --grid optim.lr=1e-3,2e-3 --seeds 0 1 2 --protocol smoke

    hosnn sweep fashion_mnist:homeostatic_fgsm --grid homeostasis.adaptation=0.05,0.1,0.2 --set optim.epochs=3

    hosnn sweep fashion_mnist_robust:lif --grid network.steps=4,8 --protocol quick --split validation --samples 5000

    hosnn sweep demo:lif_clean --grid "network.channels=(4,8),(8,16)" --address auto --gpus-per-trial 0.5

    Args:
        recipes: module:function, ours (`hosnn train` lists them) or your own.
        grid: values of a field, path=value,value,...; several --grid are combined.  Names of runs contain the values.
        set: set a field in all trials, path=value, as for `hosnn train`; names of runs do not contain it.
        seeds: run every recipe with every combination of values with each of these seeds.
        protocol: evaluate each trial under this protocol (smoke, standard, ...); only train if not given.
        threat: threat of the evaluation, norm:eps, e.g. linf:8/255.
        samples: number of images of the evaluation; the protocol's own number if not given.
        split: images of the evaluation: test, or validation to choose between trials.
        runs: folder of run folders.
        out: folder for sweep.json and sweep.md; RUNS/sweep if not given.
        data: another data set than the recipes', by name, or a path to your own, as for `hosnn train`.
        data_folder: folder of the data set, if it is not in one of the usual places.
        workers: trials at a time on this machine; as many as its cores allow if not given.
        address: head of a Ray cluster, or auto for the one that this machine belongs to.
        gpus_per_trial: GPUs set aside for each trial, at most 1; 0.5 lets two share one.
        max_time: stop after this many minutes; the same command resumes.
        hardware: what to run on; --threads is the number of cores of a trial (0: one).
        json_output: print the sweep as JSON at the end.
    """
    data = None if data is None else absolute_source(data, NAMES)
    all_trials = trials(recipes, set, grid, seeds, None if data is None else load_dataset(data, data_folder))
    cluster, hardware = cluster_for(workers, address, gpus_per_trial, hardware)
    if protocol is not None:
        protocol_by_name(protocol, Threat.parse(threat))
    if protocol is None and (split != TEST or threat != DEFAULT_THREAT_NAME):
        raise ConfigError(f"sweep got --split {split} and --threat {threat}; expected a --protocol to attack with")
    if samples is not None and (protocol is None or samples < 1):
        raise ConfigError(f"--samples got {samples}; expected at least 1 image, and a --protocol to attack them")
    deadline = deadline_after(max_time)
    target = writable_folder(out or runs / "sweep") / "sweep.json"
    state = Sweep(
        recipes=recipes,
        settings=set,
        grid=grid,
        seeds=seeds,
        protocol=protocol,
        threat=threat,
        samples=samples,
        split=checked_split(split),
    ).with_trials(all_trials, writable_folder(runs))
    conditions = Conditions(
        runs=runs.resolve(),
        data_folder=data_folder and data_folder.resolve(),
        hardware=hardware,
        protocol=protocol,
        threat=threat,
        samples=samples,
        split=split,
        data=data,
    )
    with exclusive(target.parent, name="sweep.lock") as locked:
        if not locked:
            raise ConfigError(f"another sweep is writing {target}; wait until it ends, or choose another --out")
        return _swept(state, target, all_trials, conditions, cluster, deadline, json_output)


def _swept(
    state: Sweep,
    target: Path,
    all_trials: Sequence[Trial],
    conditions: Conditions,
    cluster: Cluster,
    deadline: Deadline,
    json_output: bool,
) -> int:
    """Run the trials that are not finished in `target`, record each there, show all; returns the exit status."""
    if target.exists():
        before = Sweep.load(target)
        if lost := state.missing(before):
            raise ConfigError(
                f"{target} records {len(lost)} finished trials that do not belong to this sweep ({lost[0]}, ..); "
                "choose another folder with --out (runs stay where they are), or remove the file"
            )
        if not state.measures_as(before) and before.count("finished"):
            keep(target, "trials that were evaluated in another way (protocol, threat or number of images)")
        state = state.resumed(before)
    console = console_for(json_output)
    stopped = False
    console.print(f"{len(all_trials)} trials from {len(starts(all_trials))} starts", highlight=False)
    with TerminalProgress(console).task("sweep", len(all_trials)) as bar:
        for name, outcome in run_jobs(jobs(all_trials, conditions), cluster, deadline):
            if isinstance(outcome, TrialResult):
                state = state.with_outcome(name, "finished", result=outcome)
                bar.report(f"{name} validation accuracy {outcome.validation:.2%}{_accuracies(outcome.evaluation)}")
            elif isinstance(outcome, Failed) and not name.startswith(START):
                state = state.with_outcome(name, "failed", error=outcome.error)
                bar.report(f"{name} failed: {outcome.error}")
            elif name.startswith(START):
                if outcome is None:
                    bar.report(f"{name} is trained")
                continue
            else:
                stopped = True
                # A result of an earlier call stays as long as its run is there.
                if not (state.is_finished(name) and (conditions.runs / name / "checkpoints").is_dir()):
                    state = state.with_outcome(name, "waiting")
                continue
            state.save(target)
            bar.advance()
    state.save(target)
    write_text(target.with_suffix(".md"), markdown_sweep(state))
    console.print(rich_sweep(state))
    for failure in failures(state):
        console.print(f"failed: {failure}", markup=False)
    console.print(f"written: {target} and sweep.md", markup=False)
    if json_output:
        print_json(state.to_json())
    if stopped:
        raise Interrupted(f"{state.count('finished')} of {len(all_trials)} trials are finished", deadline)
    return 2 if state.count("failed") else 0


def jobs(all_trials: Sequence[Trial], conditions: Conditions) -> list[Job]:
    """Jobs that train the experiments that trials start from, each once; then the trials, each after its start."""
    all_starts = starts(all_trials)
    start_names = {start.name for start in all_starts}
    start_jobs = [
        Job(START + start.name, train_start, (start, conditions), START + start.start.name if start.start else "")
        for start in all_starts
    ]
    trial_jobs = []
    for trial in all_trials:
        experiment = trial.experiment
        if experiment.name in start_names:  # other trials start from this one, so its start job trains it
            after = START + experiment.name
        else:
            after = START + experiment.start.name if experiment.start else ""
        trial_jobs.append(Job(experiment.name, run_trial, (experiment, conditions), after))
    return [*start_jobs, *trial_jobs]


def cluster_for(workers: int | None, address: str | None, gpus: float, hardware: Hardware) -> tuple[Cluster, Hardware]:
    """Where trials run, and the hardware of each.  Raises ConfigError for options that exclude each other."""
    if hardware.devices != 1 or hardware.nodes != 1:
        raise ConfigError(
            f"--devices got {hardware.devices}, --nodes {hardware.nodes}; a trial runs on one device, and there "
            "are as many trials at a time as devices: leave both at 1"
        )
    if not 0 <= gpus <= 1:
        raise ConfigError(f"--gpus-per-trial got {gpus:g}; expected 0 to 1, e.g. 0.5 to let two trials share a GPU")
    if workers is not None and (workers < 1 or address is not None):
        raise ConfigError(
            f"--workers got {workers}; expected at least 1, and no --address: a cluster runs as many trials at "
            "a time as its resources allow"
        )
    possible = ("auto", "cuda", "gpu") if gpus else ("auto", "cpu", "mps")
    if hardware.accelerator not in possible:
        raise ConfigError(
            f"--accelerator got {hardware.accelerator!r} with --gpus-per-trial {gpus:g}; expected "
            f"{', '.join(possible)}; --gpus-per-trial reserves GPUs for trials"
        )
    check_threads(hardware.threads)
    cores = max(1, hardware.threads)
    accelerator = hardware.accelerator if hardware.accelerator != "auto" else "cuda" if gpus else "cpu"
    cluster = Cluster(workers or max(1, (os.cpu_count() or 1) // cores), address, cores, gpus)
    return cluster, replace(hardware, accelerator=accelerator, threads=cores)


def _accuracies(figures: EvaluationSummary | None) -> str:
    return "" if figures is None else f", {figures.protocol}: clean {figures.clean:.2%}, worst case {figures.worst:.2%}"
