"""`hosnn reproduce`."""

from pathlib import Path
from typing import Annotated

import torch
import tyro

from hosnn.cli.json_output import print_json
from hosnn.cli.measured_before import chosen, first_seed, keep_others, measured_before, together
from hosnn.cli.options import Folder, Minutes, console_for, deadline_after, writable_folder
from hosnn.cli.reproduction_pipeline import Pipeline
from hosnn.cli.side_by_side import Training
from hosnn.data import Dataset, load_dataset
from hosnn.deadline import Deadline
from hosnn.errors import ConfigError, nearest
from hosnn.estimators import Through
from hosnn.evaluation.examples import attacked_examples, neuron_traces
from hosnn.files import write_text
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.modes import device_of
from hosnn.nn.neurons import neurons
from hosnn.progress import TerminalProgress
from hosnn.recipes.reproductions import ALL, REPRODUCTIONS, Reproduction
from hosnn.recipes.variants import with_seed
from hosnn.report.conversion_figure import against_steps
from hosnn.report.paper_rows import paper_rows
from hosnn.report.plotting import svg
from hosnn.report.reproduction_figures import bars
from hosnn.report.reproduction_html import render_reproduction
from hosnn.report.reproduction_tables import reproduction_markdown, rich_table
from hosnn.results.reproduction import ReproductionResult
from hosnn.rng import SampleRandom
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.runtime import Hardware, check_threads
from hosnn.spiking.gradient_rule import bptt
from hosnn.training.configuration import describe
from hosnn.training.log import read_log
from hosnn.training.loop import precision_of
from hosnn.training.run_lock import exclusive


def reproduce(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    *,
    seeds: tuple[int, ...] = (0,),
    only: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NETWORK")] = None,
    runs: Path = Path("runs"),
    out: Folder = None,
    data_folder: Folder = None,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Train the networks of one table, attack them all, and print the results beside the paper's numbers.

    They are LIF and TA-LIF, each clean and on FGSM; for names that end in -robust LIF, TA-LIF and the ANN twin.

    Training and evaluations that are finished in --runs are not repeated; after an interruption the same command
    resumes.

    For example:

    hosnn reproduce demo

    hosnn reproduce fashion-mnist --seeds 0 1 2

    hosnn reproduce fashion-mnist-wide --only lif-clean lif-fgsm

    hosnn reproduce all --data-folder DATA

    Args:
        name: demo (embedded sample, minutes); fashion-mnist (an hour and a half on two cores);
            fashion-mnist-wide (many hours), cifar10-small, cifar100-small, svhn-small (hours on two cores); cifar10,
            cifar100, svhn (the authors' networks, for a GPU); fashion-mnist-robust, fashion-mnist-robust-32 (an hour
            each), cifar10-robust, cifar100-robust, svhn-robust (many hours): the most robust networks here; nmnist
            (recordings of an event camera, minutes); all: the paper's four tables with networks for two cores, then the
            robust ones and nmnist.
        seeds: training seeds; every network is trained and attacked for each (robust networks: panels, checks and the
            L2 threat for the first seed only).
        only: networks of the table to train and attack now, such as lif-fgsm; networks that comparison.json in --out
            has from before stay in the table if recipe, data and protocols are the same.  With --only no
            twin is converted.
        runs: folder of run folders.
        out: folder for comparison.json, table.md, bars.svg and report.html; RUNS/NAME if not given.  For all: a folder
            for each, and paper.md with the paper's rows; RUNS if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.  For all: a folder with a folder
            for each data set: cifar10, cifar100, svhn (or svhn-prefix), nmnist (or nmnist-small), fashion-mnist;
            those that are not in it are looked for in the usual places.
        max_time: stop after this many minutes; the same command resumes.
        hardware: what to run on; on a CPU independent trainings run side by side, on --threads cores together (0: those
            that are free).
        json_output: print the comparison as JSON at the end; for all: those of all tables, by name.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds got {' '.join(map(str, seeds)) or 'nothing'}; expected at least one, each once")
    if only is not None and not only:
        raise ConfigError("--only got nothing; expected names of networks of the table, or leave it out to measure all")
    if only and name == EVERYTHING:
        raise ConfigError(f"--only got {' '.join(only)} with all; give it with the name of one table")
    check_threads(hardware.threads)
    only = only or ()
    deadline = deadline_after(max_time)
    console = console_for(json_output)
    cores = hardware.threads or torch.get_num_threads()
    if name != EVERYTHING:
        reproduction = _reproduction(name)
        chosen(reproduction, only)  # before a folder is made for it
        out = _writable(out or runs / name)
        result = _reproduced(reproduction, seeds, only, runs, out, data_folder, deadline, hardware, cores, json_output)
        console.print(rich_table(result))
        if json_output:
            print_json(result.to_json())
        return 0
    out = writable_folder(out or runs)
    places = {each: _folder_of(each, data_folder) for each in ALL}
    for data, place in {_data_of(each): place for each, place in places.items()}.items():
        load_dataset(data, place)  # what is missing must not stop the last of many hours
    results = {}
    for each, place in places.items():
        reproduction, folder = _reproduction(each), _writable(out / each)
        torch.set_num_threads(cores)  # the table before used those that were free then
        results[each] = _reproduced(
            reproduction, seeds, (), runs, folder, place, deadline, hardware, cores, json_output
        )
        console.print(rich_table(results[each]))
    write_text(out / "paper.md", paper_rows(list(results.values())))
    console.print(f"written: {out / 'paper.md'}", markup=False)
    if json_output:
        print_json({each: result.to_json() for each, result in results.items()})
    return 0


EVERYTHING = "all"
COMPARISON, LOCK = "comparison.json", "comparison.lock"


def _writable(out: Path) -> Path:
    """The folder of a table, made if need be.  Raises ConfigError, before hours of work, if it cannot hold one."""
    for name in (COMPARISON, LOCK):
        if (out / name).is_dir():
            raise ConfigError(
                f"{out / name} is a folder, expected a file there or none; move it, or choose another --out"
            )
    return writable_folder(out)


def _folder_of(name: str, data_folder: Path | None) -> Path | None:
    """The folder of a reproduction's data set in a folder of several, such as svhn-prefix or svhn; None if it is not
    there."""
    data = _data_of(name)
    folders = [] if data_folder is None else [data_folder / data, data_folder / data.partition("-")[0]]
    return next((folder for folder in folders if folder.is_dir()), None)


def _data_of(name: str) -> str:
    """The name of a reproduction's data set."""
    return _reproduction(name).grid[0]().data


def _reproduced(
    reproduction: Reproduction,
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    runs: Path,
    out: Path,
    data_folder: Path | None,
    deadline: Deadline,
    hardware: Hardware,
    cores: int,
    json_output: bool,
) -> ReproductionResult:
    """Train, evaluate and write one table with its report.  Raises Interrupted if the deadline comes first.

    only   names of the networks to measure, the others are taken from `out`; empty: measure all
    cores  that independent trainings share, whatever the load is now (`Pipeline.all_trained`)
    """
    console = console_for(json_output)
    experiments = [with_seed(recipe(), seed) for seed in seeds for recipe in chosen(reproduction, only)]
    data = load_dataset(experiments[0].data, data_folder)
    console.print(f"{reproduction.title}; data: {data.name}, {data.source}", markup=False)
    pipeline = Pipeline(runs, data, hardware.fabric(), deadline, TerminalProgress(console), hardware.threads)

    def in_part() -> ReproductionResult | None:
        return measured_before(out / COMPARISON, reproduction, data, precision_of(pipeline.fabric)) if only else None

    first = first_seed(in_part(), seeds[0])
    like = Training(experiments[0], runs, data_folder, hardware, json_output)
    trained = pipeline.all_trained(experiments, cores, len(reproduction.grid), like)
    cells = [
        pipeline.cell(experiment, network, reproduction.plans_for(experiment.seed == first))
        for experiment, network in zip(experiments, trained, strict=True)
    ]
    described = experiments
    if reproduction.conversions is not None and not only:
        cells += [cell for seed in seeds for cell in pipeline.converted(reproduction.conversions, seed, cells)]
        described = experiments + [with_seed(reproduction.conversions.recipe(), seed) for seed in seeds]
    starts = pipeline.start_seconds(experiments)
    result = ReproductionResult(
        title=reproduction.title,
        dataset=data.title,
        network=experiments[0].network.title,
        cells=tuple(cells),
        columns=reproduction.columns,
        published=reproduction.published,
        experiments={experiment.name: describe(experiment) for experiment in described},
        start_seconds=sum(starts.values()),
        starts=starts,
        demonstration=reproduction.demonstration,
    )
    networks = dict(zip((experiment.name for experiment in experiments), trained, strict=True))
    with exclusive(out, Deadline(), LOCK):  # another --only may have added to the table meanwhile
        if (before := in_part()) is not None:
            result = together(before, result, reproduction)
        keep_others(out / COMPARISON, result)
        result.save(out / COMPARISON)
        write_text(out / "table.md", reproduction_markdown(result))
        write_text(out / "report.html", _report(result, networks, data, runs))
        write_text(out / "bars.svg", svg(bars(result)).decode())
        if (figure := against_steps(result)) is not None:
            write_text(out / "steps.svg", svg(figure).decode())
    console.print(f"written: {out / 'report.html'}, table.md, bars.svg, comparison.json", markup=False)
    return result


def _reproduction(name: str) -> Reproduction:
    known = (*REPRODUCTIONS, EVERYTHING)
    if name not in REPRODUCTIONS:
        raise ConfigError(
            f"unknown reproduction {name!r}; expected {' or '.join(known)}; did you mean {nearest(name, known)!r}?"
        )
    return REPRODUCTIONS[name]


def _report(result: ReproductionResult, networks: dict[str, SpikingNetwork], data: Dataset, runs: Path) -> str:
    """The page, with examples and neuron traces of the first seed's adversarially trained pair under our own PGD."""
    spiking = {name for name, network in networks.items() if neurons(network)}
    pair = {
        f"{cell.neuron}, trained {cell.training}": networks[cell.experiment]
        for cell in result.cells
        if cell.seed == result.cells[0].seed and cell.training != "clean" and cell.experiment in spiking
    } or {name: network for name, network in networks.items() if name in spiking}
    attack = Through(bptt(), PGD(DEFAULT_THREAT))
    split = data.test.take(min(200, len(data.test)))
    pictures = [
        example
        for name, network in pair.items()
        if data.steps is None  # frames of events are no picture to show an attack on
        for example in attacked_examples(network, split, attack, count=5, network=name, classes=data.classes)
    ]
    x, y = (part.to(device_of(next(iter(networks.values())))) for part in split.batch(torch.arange(1)))
    rng = SampleRandom(0, split.index[:1])
    x_adv = {name: attack(network, x, y, rng) for name, network in pair.items()}
    traces = neuron_traces(pair, x, x_adv) if pair else ()
    logs = {cell.experiment: read_log(runs / cell.experiment) for cell in result.cells}
    return render_reproduction(result, traces, pictures, logs)
