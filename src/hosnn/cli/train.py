"""`hosnn train`."""

from pathlib import Path
from typing import Annotated

import tyro

from hosnn.cli.json_output import print_json
from hosnn.cli.options import DataArgument, Folder, Minutes, console, console_for, deadline_after, writable_folder
from hosnn.data import load_dataset
from hosnn.progress import Progress, TerminalProgress
from hosnn.recipes.resolve import built_in, fitted_to, override, resolve
from hosnn.recipes.variants import with_seed
from hosnn.runtime import Hardware
from hosnn.training.pipeline import run


def train(
    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = None,
    *,
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None,
    runs: Path = Path("runs"),
    data: DataArgument = None,
    data_folder: Folder = None,
    resume: bool = False,
    max_time: Minutes = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Train the experiment of a recipe, after the one it starts from.  Without RECIPE, list all recipes.

    For example:

    hosnn train demo:homeostatic_fgsm

    hosnn train fashion_mnist:lif_fgsm --set optim.lr=3e-4 --set optim.epochs=10 --max-time 30

    hosnn train fashion_mnist:lif_fgsm --resume

    hosnn train demo:lif_fgsm --data my_pictures

    hosnn train cifar10:homeostatic_fgsm --devices 4 --precision bf16-mixed

    torchrun --nproc-per-node 4 -m hosnn train cifar10:homeostatic_fgsm --precision bf16-mixed

    Args:
        recipe: module:function, one of ours or your own.
        set: change a field of the experiment, e.g. optim.lr=3e-4; may be given several times.
        seed: seed of initial weights, order of images and attacks, also for the experiment it starts from.
        runs: folder of run folders; this run is written to RUNS/NAME.
        data: another data set than the recipe's, by name, or a path to your own (class folders, .npz, .pt, .parquet,
            file.py:function); the network is fitted to its images and classes.
        data_folder: folder of the data set, if it is not in one of the usual places.
        resume: resume an unfinished run.
        max_time: stop after this many minutes with a checkpoint; --resume continues from it.
        hardware: what to run on.
        json_output: print the outcome as JSON.
    """
    if recipe is None:
        if json_output:
            print_json(built_in())
            return 0
        for name, summary in built_in().items():
            console.print(f"[bold]{name}[/]  {summary}")
        return 0
    experiment = override(resolve(recipe), set)
    if seed is not None:
        experiment = with_seed(experiment, seed)
    writable_folder(runs)
    fabric = hardware.fabric(several=True)
    dataset = load_dataset(data or experiment.data, data_folder)
    if data is not None:
        experiment = fitted_to(dataset, experiment, set)
    deadline = deadline_after(max_time)
    progress = TerminalProgress(console_for(json_output)) if fabric.is_global_zero else Progress()
    outcome = run(
        experiment, dataset, runs, fabric, deadline, progress, resume, same_threads=True, threads=hardware.threads
    )
    if not fabric.is_global_zero:
        pass  # only the first rank prints
    elif json_output:
        print_json({**vars(outcome), "folder": str(outcome.folder)})
    elif outcome.finished:
        console.print(f"{outcome.folder}: best validation accuracy {outcome.accuracy:.2%}", markup=False)
    else:
        console.print(f"{outcome.folder}: stopped after {outcome.steps} steps; continue with --resume", markup=False)
    if outcome.finished:
        return 0
    return 128 + deadline.signalled if deadline.signalled else 1
