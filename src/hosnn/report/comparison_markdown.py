"""A comparison of several models as Markdown."""

from hosnn.names import markdown
from hosnn.results.comparison import Comparison, Measure
from hosnn.results.paired_test import paired_texts
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, markdown_rule, percent, table_row

NOTHING_TESTED = (
    "Nothing was tested, because no two models were evaluated under the same protocol: give evaluations of one "
    "protocol, with the same images and threat."
)
AGAINST_HEADS = ("network", "measure", "images", "accuracy", "minus {}", "only it right", "only the other right", "p")


def comparison_markdown(comparison: Comparison) -> str:
    """The table of accuracies and the paired tests as Markdown."""
    rows = [
        table_row(["measure", "images", *map(markdown, comparison.models)]),
        "| --- | ---: |" + " ---: |" * len(comparison.models),
    ]
    for measure in comparison.measures:
        cells = [_cell(measure, model) for model in comparison.models]
        rows.append(table_row([markdown(measure.name), f"{measure.samples:,}", *cells]))
    for name, verdicts in comparison.verdicts().items():
        rows.append(f"| {markdown(name)} |  | {' | '.join(verdicts)} |")
    table = "\n".join(rows)
    tests = "\n".join(f"- {markdown(str(test))}" for test in comparison.tests)
    tested = (
        f"Paired by image, McNemar's exact test, p-values corrected for all of these comparisons (Holm):\n\n{tests}"
        if tests
        else NOTHING_TESTED
    )
    return f"Accuracy in percent [Wilson 95 % interval].\n\n{table}\n\n{tested}\n"


def against_markdown(comparison: Comparison, against: str) -> str:
    """A line for each model tested against one of them (`compare_models(..., against=...)`), as Markdown."""
    measures = {measure.name: measure for measure in comparison.measures}
    rows = []
    for test in comparison.tests:
        measure = measures[test.measure]
        accuracy = _cell(measure, test.first)
        paired = paired_texts(test.paired, test.p_value)
        cells = (test.first, test.measure, f"{measure.samples:,}", accuracy, *paired)
        rows.append(table_row(tuple(map(markdown, cells))))
    heads = tuple(head.format(markdown(against)) for head in AGAINST_HEADS)
    accuracies = ", ".join(
        f"{markdown(name)} {_cell(measure, against)}"
        for name, measure in measures.items()
        if against in measure.correct and any(test.measure == name for test in comparison.tests)
    )
    caption = (
        "Accuracy in percent [Wilson 95 % interval], differences in points, paired by image [95 % interval]; p: "
        f"McNemar's exact test, corrected for all rows (Holm). {markdown(against)}: {accuracies}."
    )
    return "\n".join([caption, "", table_row(heads), markdown_rule(len(heads), texts=2), *rows])


def _cell(measure: Measure, model: str) -> str:
    if model not in measure.correct:
        return NOT_RUN
    low, high = wilson(measure.correct[model], measure.samples)
    return f"{percent(measure.correct[model] / measure.samples)} [{percent(low)}, {percent(high)}]"
