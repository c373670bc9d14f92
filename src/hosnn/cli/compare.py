"""`hosnn compare`."""

import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from hosnn.cli.evaluate import MARKS
from hosnn.cli.options import Folder, console, writable_folder
from hosnn.files import write_json, write_text
from hosnn.report.comparison_markdown import comparison_markdown
from hosnn.results.comparison import Comparison, compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import percent

Results = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT.json ...")]


def compare(
    results: Results,
    *,
    attacks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (),
    out: Folder = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Set evaluations of several models side by side, and test on the same images which holds more.

    Each pair of models is tested on the worst case of every protocol they share, image by image (McNemar's exact test,
    corrected for the number of tests by Holm's method).  Exit status 0, or 2 if the results cannot be compared.

    For example:

    hosnn compare a/evaluations/standard.json b/evaluations/standard.json

    hosnn compare results/*.json --attacks "PGD-7 BPTT" --out docs/results/mine

    Args:
        results: JSON files written by `hosnn evaluate`, of two models or more.
        attacks: names of attacks to test besides the worst case.
        out: folder for side-by-side.json and side-by-side.md; nothing is written if not given.
        json_output: print the comparison as JSON and nothing else.
    """
    found = compare_models([Evaluation.load(path) for path in results], attacks)
    if out is not None:
        folder = writable_folder(out)
        write_json(folder / "side-by-side.json", found.to_json())
        write_text(folder / "side-by-side.md", comparison_markdown(found))
    if json_output:
        print(json.dumps(found.to_json()))
        return 0
    console.print(table(found))
    for test in found.tests:
        console.print(f"- {escape(str(test))}")
    return 0


def table(found: Comparison) -> Table:
    """Accuracies by model, and what the checks of their evaluations came to."""
    shown = Table(title="accuracy in percent")
    shown.add_column("measure")
    for heading in ("images", *found.models):
        shown.add_column(escape(heading), justify="right")
    for measure in found.measures:
        shares = [
            percent(measure.kept[model] / measure.samples) if model in measure.kept else "–" for model in found.models
        ]
        shown.add_row(escape(measure.name), f"{measure.samples:,}", *shares)
    for name, verdicts in found.verdicts().items():
        shown.add_row(escape(name), "", *(MARKS.get(verdict, "–") for verdict in verdicts))
    return shown
