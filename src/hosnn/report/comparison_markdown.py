"""A comparison of several models as Markdown."""

from hosnn.names import markdown
from hosnn.results.comparison import Comparison, Measure
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, percent, table_row


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
    return (
        f"Accuracy in percent [Wilson 95 % interval].\n\n{table}\n\nPaired by image, McNemar's exact test, p-values "
        f"corrected for all of these comparisons (Holm):\n\n{tests}\n"
    )


def _cell(measure: Measure, model: str) -> str:
    if model not in measure.correct:
        return NOT_RUN
    low, high = wilson(measure.correct[model], measure.samples)
    return f"{percent(measure.correct[model] / measure.samples)} [{percent(low)}, {percent(high)}]"
