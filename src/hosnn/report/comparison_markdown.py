"""A comparison of several models as Markdown."""

from hosnn.results.comparison import Comparison, Measure
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, percent


def comparison_markdown(comparison: Comparison) -> str:
    """The table of accuracies and the paired tests as Markdown."""
    rows = [
        f"| measure | images | {' | '.join(comparison.models)} |",
        "| --- | ---: |" + " ---: |" * len(comparison.models),
    ]
    for measure in comparison.measures:
        cells = [_cell(measure, model) for model in comparison.models]
        rows.append(f"| {measure.name} | {measure.samples:,} | {' | '.join(cells)} |")
    for name, verdicts in comparison.verdicts().items():
        rows.append(f"| {name} |  | {' | '.join(verdicts)} |")
    table = "\n".join(rows)
    tests = "\n".join(f"- {test}" for test in comparison.tests)
    return (
        f"Accuracy in percent [Wilson 95 % interval].\n\n{table}\n\nPaired by image, McNemar's exact test, p-values "
        f"corrected for all of these comparisons (Holm):\n\n{tests}\n"
    )


def _cell(measure: Measure, model: str) -> str:
    if model not in measure.correct:
        return NOT_RUN
    low, high = wilson(measure.correct[model], measure.samples)
    return f"{percent(measure.correct[model] / measure.samples)} [{percent(low)}, {percent(high)}]"
