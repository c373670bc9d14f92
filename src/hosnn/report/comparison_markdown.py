"""A comparison of several models as Markdown."""

from hosnn.results.comparison import Comparison, Measure
from hosnn.results.statistics import wilson
from hosnn.results.text import NOT_RUN, percent


def comparison_markdown(found: Comparison) -> str:
    """The table and the tests as Markdown."""
    head = f"| measure | images | {' | '.join(found.models)} |"
    lines = [head, "| --- | ---: |" + " ---: |" * len(found.models)]
    for measure in found.measures:
        cells = [_cell(measure, model) for model in found.models]
        lines.append(f"| {measure.name} | {measure.samples:,} | {' | '.join(cells)} |")
    tests = "\n".join(f"- {test}" for test in found.tests)
    for name, verdicts in found.verdicts().items():
        lines.append(f"| {name} |  | {' | '.join(verdicts)} |")
    table = "\n".join(lines)
    return (
        f"Accuracy in percent [Wilson 95 % interval].\n\n{table}\n\nPaired by image, McNemar's exact test, p-values "
        f"corrected for all of these comparisons (Holm):\n\n{tests}\n"
    )


def _cell(measure: Measure, model: str) -> str:
    if model not in measure.kept:
        return NOT_RUN
    low, high = wilson(measure.kept[model], measure.samples)
    return f"{percent(measure.kept[model] / measure.samples)} [{percent(low)}, {percent(high)}]"
