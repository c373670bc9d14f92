"""`hosnn theory`."""

from pathlib import Path
from typing import Annotated

import torch
import tyro

from hosnn.cli.json_output import print_json
from hosnn.cli.options import console_for, writable_folder
from hosnn.files import write_json, write_text
from hosnn.report.plotting import svg
from hosnn.runtime import check_seed, check_threads
from hosnn.theory.figures import figures
from hosnn.theory.study import Effort, study
from hosnn.theory.tables import tables


def theory(
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="PATH")] = Path("runs/theory"),
    neurons: int = 1000,
    steps: int = 1200,
    seed: int = 0,
    threads: int = 1,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Compare the theory of the membrane's error with simulated spikes: all numbers and figures of docs/theory.md.

    Takes some ten minutes at the default size.

    For example:

    hosnn theory --out docs/results/theory

    hosnn theory --neurons 100 --steps 200 --out runs/theory-quick

    Args:
        out: folder for theory.json, the tables (Markdown) and the figures (SVG).
        neurons: simulated neurons per condition, at least 16.
        steps: time steps of a long run, at least 80.
        seed: seed of every random draw.
        threads: CPU threads; these populations are too small to gain from more.
        json_output: print the numbers as JSON.
    """
    check_threads(threads)
    check_seed(seed)
    progress = console_for(json_output)
    effort = Effort(neurons, steps, seed)
    folder = writable_folder(out)
    torch.set_num_threads(threads or torch.get_num_threads())
    results = study(effort, lambda part: progress.print(f"{part.replace('_', ' ')} ..."))
    write_json(folder / "theory.json", results)
    for name, table in tables(results).items():
        write_text(folder / f"{name}.md", table)
    for name, figure in figures(results).items():
        write_text(folder / f"{name}.svg", svg(figure).decode())
    progress.print(f"written to {folder}", markup=False)
    if json_output:
        print_json(results)
    return 0
