"""`hosnn reproduce`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from lightning_fabric import Fabric

from hosnn.cli.options import Folder, Minutes, console_for, deadline_after, writable_folder
from hosnn.cli.side_by_side import Training, train_side_by_side
from hosnn.data import Dataset, load_dataset
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError, nearest
from hosnn.estimators import Through
from hosnn.evaluation.examples import attacked_examples, neuron_traces
from hosnn.evaluation.store import file_stem, stored_or_fresh
from hosnn.files import write_text
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.modes import device_of
from hosnn.nn.neurons import neurons
from hosnn.progress import Progress, TerminalProgress
from hosnn.recipes.reproductions import ALL, REPRODUCTIONS, PlannedEvaluation, Reproduction
from hosnn.recipes.variants import with_seed
from hosnn.report.paper_rows import paper_rows
from hosnn.report.plotting import svg
from hosnn.report.reproduction_figures import bars
from hosnn.report.reproduction_html import render_reproduction
from hosnn.report.reproduction_tables import reproduction_markdown, rich_table
from hosnn.results.reproduction import Cell, ReproductionResult
from hosnn.rng import SampleRandom
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.runtime import Hardware
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.checkpoint import load
from hosnn.training.configuration import describe
from hosnn.training.experiment import Experiment
from hosnn.training.log import read_log
from hosnn.training.loop import precision_of
from hosnn.training.pipeline import finished_run, run


def reproduce(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    *,
    seeds: tuple[int, ...] = (0,),
    runs: Path = Path("runs"),
    out: Folder = None,
    data_folder: Folder = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Train LIF and TA-LIF, each clean and on FGSM, attack all four, and print them beside the paper's numbers.

    Training and evaluations that are finished in --runs are not repeated; after an interruption the same command
    resumes.

    For example:

    hosnn reproduce demo

    hosnn reproduce fashion-mnist --seeds 0 1 2

    hosnn reproduce all --data-folder DATA

    Args:
        name: demo (embedded sample, minutes); fashion-mnist (an hour and a half on two cores); cifar10-small,
            cifar100-small, svhn-small (hours on two cores); cifar10, cifar100, svhn (the authors' networks, for a GPU);
            fashion-mnist-robust (an hour), cifar10-robust, cifar100-robust, svhn-robust (many hours): the most robust
            networks here; all: the paper's four tables with networks for two cores, then the robust ones.
        seeds: training seeds; all four networks are trained and attacked for each.
        runs: folder of run folders.
        out: folder for comparison.json, table.md, bars.svg and report.html; RUNS/NAME if not given.  For all: a folder
            for each, and paper.md with the paper's rows; RUNS if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.  For all: a folder with a folder
            for each data set, such as cifar10; those that are not in it are looked for in the usual places.
        max_time: stop after this many minutes; the same command resumes.
        hardware: what to run on; on a CPU independent trainings run side by side, on --threads cores together (0: those
            that are free).
        json_output: print the comparison as JSON at the end; for all: those of all tables, by name.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds got {' '.join(map(str, seeds)) or 'nothing'}; expected at least one, each once")
    deadline = deadline_after(max_time)
    console = console_for(json_output)
    if name != EVERYTHING:
        out = writable_folder(out or runs / name)
        result = _reproduced(_reproduction(name), seeds, runs, out, data_folder, deadline, hardware, json_output)
        console.print(rich_table(result))
        if json_output:
            print(json.dumps(result.to_json()))
        return 0
    out = writable_folder(out or runs)
    results = {}
    for each in ALL:
        folder, place = writable_folder(out / each), _folder_of(each, data_folder)
        results[each] = _reproduced(_reproduction(each), seeds, runs, folder, place, deadline, hardware, json_output)
        console.print(rich_table(results[each]))
    write_text(out / "paper.md", paper_rows(list(results.values())))
    console.print(f"written: {out / 'paper.md'}", markup=False)
    if json_output:
        print(json.dumps({each: result.to_json() for each, result in results.items()}))
    return 0


EVERYTHING = "all"


def _folder_of(name: str, data_folder: Path | None) -> Path | None:
    """The folder of a reproduction's data set in a folder of several; None if it is not there."""
    folder = None if data_folder is None else data_folder / _reproduction(name).grid[0]().data
    return folder if folder is not None and folder.is_dir() else None


def _reproduced(
    reproduction: Reproduction,
    seeds: tuple[int, ...],
    runs: Path,
    out: Path,
    data_folder: Path | None,
    deadline: Deadline,
    hardware: Hardware,
    json_output: bool,
) -> ReproductionResult:
    """Train, evaluate and write one table with its report.  Raises Interrupted if the deadline comes first."""
    console = console_for(json_output)
    experiments = [with_seed(recipe(), seed) for seed in seeds for recipe in reproduction.grid]
    data = load_dataset(experiments[0].data, data_folder)
    console.print(f"{reproduction.title}; data: {data.name}, {data.source}", markup=False)
    cores = hardware.threads or torch.get_num_threads()
    pipeline = _Pipeline(runs, data, hardware.fabric(), deadline, TerminalProgress(console))
    like = Training(experiments[0], runs, data_folder, hardware, json_output)
    trained = pipeline.all_trained(experiments, cores, like)
    cells = [
        pipeline.cell(experiment, network, reproduction.plans)
        for experiment, network in zip(experiments, trained, strict=True)
    ]
    result = ReproductionResult(
        title=reproduction.title,
        dataset=data.title,
        network=experiments[0].network.title,
        cells=tuple(cells),
        columns=reproduction.columns,
        published=reproduction.published,
        experiments={experiment.name: describe(experiment) for experiment in experiments},
        start_seconds=sum(pipeline.seconds(start) for start in dict.fromkeys(e.start for e in experiments if e.start)),
        demonstration=reproduction.demonstration,
    )
    result.save(out / "comparison.json")
    write_text(out / "table.md", reproduction_markdown(result))
    networks = dict(zip((experiment.name for experiment in experiments), trained, strict=True))
    write_text(out / "report.html", _report(result, networks, data, runs))
    write_text(out / "bars.svg", svg(bars(result)).decode())
    console.print(f"written: {out / 'report.html'}, table.md, bars.svg, comparison.json", markup=False)
    return result


def _reproduction(name: str) -> Reproduction:
    known = (*REPRODUCTIONS, EVERYTHING)
    if name not in REPRODUCTIONS:
        raise ConfigError(
            f"unknown reproduction {name!r}; expected {' or '.join(known)}; did you mean {nearest(name, known)!r}?"
        )
    return REPRODUCTIONS[name]


@dataclass(frozen=True)
class _Pipeline:
    """Trains and evaluates networks in a folder of runs, until a deadline."""

    runs: Path
    data: Dataset
    fabric: Fabric
    deadline: Deadline
    progress: Progress

    def all_trained(self, experiments: list[Experiment], cores: int, like: Training) -> list[SpikingNetwork]:
        """The networks of all experiments; on a CPU independent ones are trained side by side.

        cores  Each training gets an equal share of them, whatever else they do now: sums depend on the number of
               threads in their last bits, and the load must not decide about results, only how many run at a time.
        like   what else a training in another process needs
        """
        if self.fabric.device.type != "cpu":
            return [self.trained(experiment) for experiment in experiments]
        free, threads = torch.get_num_threads(), max(1, cores // len(experiments))
        like = replace(like, hardware=replace(like.hardware, accelerator="cpu", threads=threads))
        torch.set_num_threads(threads)
        try:
            starts = [experiment.start for experiment in experiments if experiment.start is not None]
            for stage in (starts, experiments):
                left = [experiment for experiment in dict.fromkeys(stage) if not self._is_finished(experiment)]
                if len(left) > 1 and free // threads > 1:
                    trainings = [replace(like, experiment=experiment) for experiment in left]
                    train_side_by_side(trainings, free // threads, self.deadline)
                else:
                    for experiment in left:
                        self.trained(experiment)
            return [self.trained(experiment) for experiment in experiments]
        finally:
            torch.set_num_threads(free)

    def _is_finished(self, experiment: Experiment) -> bool:
        return finished_run(experiment, self.data, self.runs / experiment.name, precision_of(self.fabric)) is not None

    def trained(self, experiment: Experiment) -> SpikingNetwork:
        """The experiment's network at its best checkpoint, trained now if it is not finished."""
        outcome = run(experiment, self.data, self.runs, self.fabric, self.deadline, self.progress, resume=True)
        if not outcome.finished:
            raise Interrupted(f"in the training of {experiment.name} or of its start", self.deadline)
        return load(outcome.folder).network.to(self.fabric.device)

    def seconds(self, experiment: Experiment) -> float:
        """Wall time that the training of a finished experiment took."""
        return run(experiment, self.data, self.runs, self.fabric).seconds

    def cell(self, experiment: Experiment, network: SpikingNetwork, plans: tuple[PlannedEvaluation, ...]) -> Cell:
        """Everything measured on one trained network."""
        evaluations = {}
        for plan in plans:
            planned = plan.resolved()
            stem = file_stem(planned.name, str(plan.threat), plan.samples, experiment.seed)
            evaluations[plan.key] = stored_or_fresh(
                network,
                self.data,
                planned,
                self.runs / experiment.name / "evaluations" / f"{stem}.json",
                name=experiment.name,
                seed=experiment.seed,
                progress=self.progress,
                deadline=self.deadline,
            )
        outcome = run(experiment, self.data, self.runs, self.fabric)
        return Cell(
            neuron=_neuron(experiment, network),
            training=experiment.objective.title,
            experiment=experiment.name,
            identity=experiment.identity,
            seed=experiment.seed,
            epochs=_epochs(experiment),
            training_seconds=outcome.seconds,
            validation=outcome.accuracy,
            evaluations=evaluations,
        )


def _report(result: ReproductionResult, networks: dict[str, SpikingNetwork], data: Dataset, runs: Path) -> str:
    """The page, with examples and neuron traces of the first seed's adversarially trained pair under our own PGD."""
    pair = {
        f"{cell.neuron}, trained {cell.training}": networks[cell.experiment]
        for cell in result.cells
        if cell.seed == result.cells[0].seed and cell.training != "clean" and cell.neuron != "ANN"
    }
    attack = Through(bptt(), PGD(DEFAULT_THREAT))
    split = data.test.take(min(200, len(data.test)))
    pictures = [
        example
        for name, network in pair.items()
        for example in attacked_examples(network, split, attack, count=5, network=name, classes=data.classes)
    ]
    x, y = (part.to(device_of(next(iter(pair.values())))) for part in split.batch(torch.arange(1)))
    rng = SampleRandom(0, split.index[:1])
    x_adv = {name: attack(network, x, y, rng) for name, network in pair.items()}
    logs = {cell.experiment: read_log(runs / cell.experiment) for cell in result.cells}
    return render_reproduction(result, neuron_traces(pair, x, x_adv), pictures, logs)


def _neuron(experiment: Experiment, network: SpikingNetwork) -> str:
    """E.g. "TA-LIF"; "ANN" of a network without spikes."""
    return "TA-LIF" if experiment.homeostasis else "LIF" if neurons(network) else "ANN"


def _epochs(experiment: Experiment) -> int:
    return experiment.optim.epochs + (0 if experiment.start is None else _epochs(experiment.start))
