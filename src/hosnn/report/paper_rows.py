"""The four rows of the paper's abstract beside every network that was measured on these data sets, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hosnn.names import markdown
from hosnn.report.phrases import NO_VALUE
from hosnn.report.reproduction_tables import CLEAN, WORST, Column, MeasuredAccuracy, measured_accuracy
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell, NetworkKind, ReproductionResult, cells_by_kind, evaluation_key
from hosnn.results.text import ATTACKS_ONLY, markdown_rule, percent, table_row
from hosnn.robustness.threats import DEFAULT_THREAT

HEADS = ("network", "structure", "steps", "epochs", "CPU hours")
PAPER, STANDARD = "paper", "standard"
UNCHECKED = "ᵃ"
"""Marks a worst case of `standard, attacks only`, which makes no checks."""
MEASURES = {
    "clean": Column("", PAPER, CLEAN),
    "PGD-7, authors' protocol": Column("", PAPER, "PGD-7"),
    "worst case, 2/255": Column("", evaluation_key(STANDARD, "linf:2/255"), WORST),
    "worst case, 8/255": Column("", STANDARD, WORST),
}
"""Columns of numbers."""


def paper_rows(results: Sequence[ReproductionResult], also: Iterable[Evaluation] = ()) -> str:
    """A table for each data set: the published numbers, then every network of its reproductions.

    Reproductions without published numbers are left out.
    UNCHECKED marks worst cases measured by the attacks of `standard` alone.
    also  evaluations made beside the reproductions, by the experiment's name; "trained again" marks other weights
    """
    beside: dict[str, list[Evaluation]] = {}
    for evaluation in also:
        beside.setdefault(evaluation.model, []).append(evaluation)
    results = [result for result in results if result.published]
    lines: list[str] = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        of_it = [result for result in results if result.dataset == dataset]
        lines += [
            f"### {markdown(dataset)}",
            "",
            table_row((*HEADS, *MEASURES)),
            markdown_rule(len(HEADS) + len(MEASURES), texts=2),
        ]
        lines += _published(of_it)
        for result in of_it:
            for kind, cells in cells_by_kind(result).items():
                rows = [_with(cell, beside.get(cell.experiment, ())) for cell in cells]
                lines.append(_measured(result, kind, rows))
        lines += ["", _starts(of_it), ""]
    return "\n".join(lines)


def _starts(results: Sequence[ReproductionResult]) -> str:
    """What training the starts took, which networks of a reproduction share."""
    took = (f"{_hours(result.start_seconds)} ({markdown(result.title)})" for result in results)
    return f"Hours of wall time for training the starts of all seeds: {', '.join(took)}."


def _training_hours(cells: Sequence[Cell]) -> str:
    """Processor time of training, the mean over seeds; wall time, and marked so, where a cell has no other.

    A network without training of its own, as a converted one, has none.
    """
    if not any(cell.training_seconds for cell in cells):
        return NO_VALUE
    recorded = [cell.cpu_seconds for cell in cells if cell.cpu_seconds is not None]
    if len(recorded) == len(cells):
        return _hours(sum(recorded) / len(cells))
    return f"{_hours(sum(cell.training_seconds for cell in cells) / len(cells))} (wall)"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"


def _published(results: Sequence[ReproductionResult]) -> list[str]:
    """A row for each published number under the authors' PGD-7, once."""
    rows = {}
    for number in (number for result in results for number in result.published):
        if number.attack == "PGD-7":
            name = markdown(f"published: {NetworkKind(number.neuron, number.training)}")
            rows[number.neuron, number.training] = table_row(
                [name, "the authors'", *[NO_VALUE] * 4, f"{number.accuracy:g}", NO_VALUE, NO_VALUE]
            )
    return list(rows.values())


def _measured(result: ReproductionResult, kind: NetworkKind, cells: Sequence[Cell]) -> str:
    seeds = ", 1 seed" if len(cells) == 1 else f", {len(cells)} seeds"
    texts = [
        markdown(f"{kind}{seeds}"),
        markdown(result.network),
        _steps(result, cells[0]),
        str(cells[0].epochs),
        _training_hours(cells),
    ]
    for column in MEASURES.values():
        accuracy = measured_accuracy(cells, column)
        again = ", trained again" if any(_is_of_other_weights(cell, column) for cell in cells) else ""
        unchecked = f" {UNCHECKED}" if any(_is_unchecked(cell, column) for cell in cells) else ""
        texts.append(_number(accuracy, len(cells)) + again + unchecked if accuracy else NO_VALUE)
    return table_row(texts)


def _steps(result: ReproductionResult, cell: Cell) -> str:
    """The network's time steps; of a network without neurons, or of unknown settings, none."""
    network = result.experiments.get(cell.experiment, {}).get("network")
    steps = network.get("steps") if isinstance(network, Mapping) and cell.neuron != "ANN" else None
    return NO_VALUE if steps is None else str(steps)


def _number(accuracy: MeasuredAccuracy, seeds: int) -> str:
    of_seeds = f", {len(accuracy.seeds)} of {seeds} seeds" if len(accuracy.seeds) < seeds else ""
    return f"{percent(accuracy.mean)} {accuracy.spread}, n = {accuracy.samples:,}{of_seeds}"


def _is_of_other_weights(cell: Cell, column: Column) -> bool:
    """Whether the column's number was measured after another training of the experiment than the other numbers."""
    evaluation = cell.evaluation(column.protocol)
    return evaluation is not None and evaluation.model_sha256 != [*cell.evaluations.values()][-1].model_sha256


def _is_unchecked(cell: Cell, column: Column) -> bool:
    evaluation = cell.evaluation(column.protocol)
    return evaluation is not None and evaluation.protocol.endswith(ATTACKS_ONLY)


def _with(cell: Cell, beside: Iterable[Evaluation]) -> Cell:
    """The cell with evaluations made beside it, unless it has one of that protocol, or of its attacks alone."""
    added = {}
    for extra in beside:
        threat = None if extra.threat == str(DEFAULT_THREAT) else extra.threat
        if cell.evaluation(evaluation_key(extra.protocol.removesuffix(ATTACKS_ONLY), threat)) is None:
            added[evaluation_key(extra.protocol, threat)] = extra
    return replace(cell, evaluations=added | dict(cell.evaluations))
