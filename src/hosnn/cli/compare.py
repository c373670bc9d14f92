"""`hosnn compare`."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from hosnn.cli.evaluate import MARKS
from hosnn.cli.json_output import print_json
from hosnn.cli.options import Folder, console, writable_folder
from hosnn.files import write_json, write_text
from hosnn.report.comparison_markdown import NOTHING_TESTED, comparison_markdown
from hosnn.report.phrases import NO_VALUE
from hosnn.results.comparison import Comparison, compare_models
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import percent

Results = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT.json ...")]


def compare(
    results: Results,
    *,
    attacks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (),
    against: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    out: Folder = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Compare evaluations of several models, and test on the same images which model is more robust.

    Each pair of models is tested on the worst case of every protocol they share, image by image (McNemar's exact test,
    corrected for the number of tests by Holm's method).  Exit status 0, or 2 if the results cannot be compared.

    For example:

    hosnn compare a/evaluations/standard.json b/evaluations/standard.json

    hosnn compare results/*.json --attacks "PGD-7 BPTT" --out docs/results/mine

    hosnn compare results/*.json --against fashion-mnist-lif-clean

    Args:
        results: JSON files written by `hosnn evaluate`, of two models or more.
        attacks: names of attacks to test in addition to the worst case.
        against: name of the model that all others are tested against, in place of every pair.
        out: folder for side-by-side.json and side-by-side.md; nothing is written if not given.
        json_output: print the comparison as JSON and nothing else.
    """
    comparison = compare_models([Evaluation.load(path) for path in results], attacks, against)
    if out is not None:
        folder = writable_folder(out)
        write_json(folder / "side-by-side.json", comparison.to_json())
        write_text(folder / "side-by-side.md", comparison_markdown(comparison))
    if json_output:
        print_json(comparison.to_json())
        return 0
    console.print(comparison_table(comparison))
    for test in comparison.tests:
        console.print(f"- {escape(str(test))}")
    if not comparison.tests:
        console.print(escape(NOTHING_TESTED))
    return 0


def comparison_table(comparison: Comparison) -> Table:
    """Accuracies by model, and the verdict of the checks of each evaluation."""
    table = Table(title="accuracy in percent")
    table.add_column("measure")
    for heading in ("images", *comparison.models):
        table.add_column(escape(heading), justify="right")
    for measure in comparison.measures:
        shares = [
            percent(measure.correct[model] / measure.samples) if model in measure.correct else NO_VALUE
            for model in comparison.models
        ]
        table.add_row(escape(measure.name), f"{measure.samples:,}", *shares)
    for name, verdicts in comparison.verdicts().items():
        table.add_row(escape(name), "", *(MARKS.get(verdict, NO_VALUE) for verdict in verdicts))
    return table
