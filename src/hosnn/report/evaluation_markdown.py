"""One evaluation as a short Markdown file: the finding, what limits it, tables.  A pure function of the result."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hosnn.names import markdown
from hosnn.report.evaluation_summary import finding, limitations
from hosnn.report.evaluation_tables import (
    attack_rows,
    class_rows,
    facts,
    most_and_least_robust,
    other_panels,
    ranking,
    sorted_checks,
    step_curves,
)
from hosnn.report.phrases import NO_VALUE, duration, interval_text, size
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval
from hosnn.results.text import markdown_rule, percent, table_row


class Section(NamedTuple):
    """A table under a title; left out of the file if it has no rows.

    text_columns  columns of text at the left; the others are numbers
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1


def markdown_evaluation(evaluation: Evaluation, classes: Sequence[str] = ()) -> str:
    """The report of one model under one protocol, without figures.

    classes  names of the classes, by number; without a name the number is shown
    """
    sections = [
        _attacks(evaluation),
        _checks(evaluation),
        *_curves(evaluation),
        *_matrix(evaluation),
        _search(evaluation),
        _classes(evaluation, classes),
        *_other_panels(evaluation),
    ]
    parts = [
        f"# {markdown(evaluation.model)}: {markdown(evaluation.protocol)}",
        f"**{markdown(finding(evaluation))}**",
        "\n".join(f"- {markdown(limitation)}" for limitation in limitations(evaluation)),
        *(_rendered(section) for section in sections if section.rows),
        "## Where the numbers come from\n\n"
        + "\n".join(f"- {name}: {markdown(text)}" for name, text in facts(evaluation)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attacks(evaluation: Evaluation) -> Section:
    rows = [
        (
            f"{row.name} ({row.threat})" if row.threat else row.name,
            ", ".join(part for part in (row.kind, row.estimator) if part),
            f"{row.steps:,}" if row.steps else "",
            _accuracy(row.share, row.interval),
            "" if row.broken is None else f"{row.broken:,}",
            f"{row.forward:,} / {row.backward:,}" if row.forward or row.backward else "",
            "" if row.seconds is None else duration(row.seconds),
        )
        for row in attack_rows(evaluation)
    ]
    headings = ("attack", "kind", "steps or queries", "accuracy, %", "broken", "passes forward / backward", "time")
    cascade = " Each attack is given only the images that are still correct after those above." * evaluation.cascade
    caption = (
        f"Threat {evaluation.threat}, {evaluation.samples:,} images of {evaluation.dataset}; [Wilson 95 % interval]. "
        f"Broken: images that this attack broke and none above it.{cascade}"
    )
    return Section("Accuracy after each attack", headings, rows, caption, text_columns=2)


def _checks(evaluation: Evaluation) -> Section:
    rows = [(check.severity, check.name, check.figure, check.meaning) for check in sorted_checks(evaluation)]
    headings = ("result", "check", "measured", "what it means")
    return Section("Can the number be believed?", headings, rows, text_columns=4)


def _curves(evaluation: Evaluation) -> list[Section]:
    eps = [
        (size(eps, evaluation.threat), _accuracy(share, interval)) for eps, share, interval in evaluation.curve_points()
    ]
    steps = [
        (name, f"{row.steps:,}", _accuracy(row.share, row.interval))
        for name, curve in step_curves(evaluation).items()
        for row in curve
    ]
    return [
        Section("Accuracy as the attacker's budget grows", ("eps", "accuracy, %"), eps),
        Section("Accuracy as the attacker takes more steps", ("attack", "steps", "accuracy, %"), steps),
    ]


def _matrix(evaluation: Evaluation) -> list[Section]:
    table = attack_matrix(evaluation)
    if table is None:
        return []
    rows = [
        (estimator, *(NO_VALUE if share is None else percent(share) for share in shares), percent(worst))
        for estimator, shares, worst in zip(table.estimators, table.cells, table.by_estimator, strict=True)
    ]
    rows.append(("worst case", *map(percent, table.by_method), percent(table.all)))
    title = f"Attack by gradient estimator, accuracy in percent on the same {table.samples:,} images"
    return [Section(title, ("gradient estimator", *table.methods, "worst case"), rows)]


def _search(evaluation: Evaluation) -> Section:
    rows = [(row.name, _accuracy(row.share, row.interval), "yes" if row.used else "no") for row in ranking(evaluation)]
    headings = ("gradient estimator", "accuracy, %", "used by attacks above")
    return Section("Strongest gradient estimators", headings, rows)


def _classes(evaluation: Evaluation, classes: Sequence[str]) -> Section:
    by_class = class_rows(evaluation, classes)
    rows = [
        (row.name, f"{row.samples:,}", percent(row.clean), _accuracy(row.worst, row.interval))
        for row in most_and_least_robust(by_class)
        if len(by_class) > 1
    ]
    return Section("Accuracy by class", ("class", "images", "clean, %", "worst case, %"), rows)


def _other_panels(evaluation: Evaluation) -> Iterable[Section]:
    for title, rows in other_panels(evaluation):
        texts = [
            (row.name, size(row.eps, evaluation.threat), f"{row.samples:,}", _accuracy(row.share, row.interval))
            for row in rows
        ]
        yield Section(title, ("attack", "eps", "images", "accuracy, %"), texts)


def _rendered(section: Section) -> str:
    rows = [table_row([markdown(text) for text in row]) for row in section.rows]
    headings = table_row([markdown(heading) for heading in section.headings])
    table = "\n".join([headings, markdown_rule(len(section.headings), section.text_columns), *rows])
    return "\n\n".join(part for part in (f"## {markdown(section.title)}", markdown(section.caption), table) if part)


def _accuracy(share: float, interval: Interval) -> str:
    return f"{percent(share)} {interval_text(interval)}"
