"""One evaluation as a short Markdown file: the finding, what to hold against it, tables.  A pure function."""

import re
from collections.abc import Iterable, Sequence

from hosnn.report.evaluation_summary import finding, remarks
from hosnn.report.evaluation_tables import (
    attack_lines,
    checks,
    class_lines,
    duration,
    extremes,
    facts,
    other_panels,
    ranking,
    step_curves,
)
from hosnn.report.reproduction_tables import NOT_PRINTED
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval
from hosnn.results.text import inline, markdown_rule, percent, table_row
from hosnn.robustness.threats import format_eps

Table = tuple[str, Sequence[str], Iterable[Sequence[str]]]
"""What stands above it, the headings, the lines.  The first column is text, the others numbers."""


def markdown_evaluation(evaluation: Evaluation, classes: Sequence[str] = ()) -> str:
    """The report of one model under one protocol, without pictures.

    classes  names of the classes, by number; numbers are shown without
    """
    parts = [
        f"# {_safe(evaluation.model)}: {_safe(evaluation.protocol)}",
        f"**{_safe(finding(evaluation))}**",
        "\n".join(f"- {_safe(remark)}" for remark in remarks(evaluation)),
        _attacks(evaluation),
        _checks(evaluation),
        *(_section(*table) for table in (*_curves(evaluation), *_matrix(evaluation), *_search(evaluation))),
        *(_section(*table) for table in (*_classes(evaluation, classes), *_others(evaluation))),
        "## Where the numbers come from\n\n"
        + "\n".join(f"- {name}: {_safe(text)}" for name, text in facts(evaluation)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attacks(evaluation: Evaluation) -> str:
    lines = [
        (
            f"{line.name} ({line.threat})" if line.threat else line.name,
            ", ".join(part for part in (line.kind, line.estimator) if part),
            f"{line.steps:,}" if line.steps else "",
            f"{percent(line.share)} {_span(line.interval)}",
            "" if line.broken is None else f"{line.broken:,}",
            f"{line.forward:,} / {line.backward:,}" if line.forward or line.backward else "",
            "" if line.seconds is None else duration(line.seconds),
        )
        for line in attack_lines(evaluation)
    ]
    seen = " Each attack sees only the images that those above it left standing." if evaluation.cascade else ""
    head = ("attack", "kind", "steps or queries", "accuracy, %", "taken", "passes forward / backward", "time")
    said = (
        f"Threat {evaluation.threat}, {evaluation.samples:,} images of {evaluation.dataset}; [Wilson 95 % interval]. "
        f"Taken: images lost to this attack and to none before it.{seen}"
    )
    return _section("What each attack left", head, lines, said, texts=2)


def _checks(evaluation: Evaluation) -> str:
    lines = [(check.severity, check.name, check.figure, check.meaning) for check in checks(evaluation)]
    return _section("Can the number be believed?", ("result", "check", "found", "what it means"), lines, texts=4)


def _curves(evaluation: Evaluation) -> list[Table]:
    eps = [(format_eps(at), f"{percent(share)} {_span(span)}") for at, share, span in evaluation.curve_points()]
    steps = [
        (name, f"{line.steps:,}", f"{percent(line.share)} {_span(line.interval)}")
        for name, curve in step_curves(evaluation).items()
        for line in curve
    ]
    return [
        ("Accuracy as the attacker's budget grows", ("eps", "accuracy, %"), eps),
        ("Accuracy as the attacker takes more steps", ("attack", "steps", "accuracy, %"), steps),
    ]


def _matrix(evaluation: Evaluation) -> list[Table]:
    found = attack_matrix(evaluation)
    if found is None:
        return []
    lines = [
        (estimator, *(NOT_PRINTED if share is None else percent(share) for share in shares), percent(worst))
        for estimator, shares, worst in zip(found.estimators, found.cells, found.by_estimator, strict=True)
    ]
    last = ("worst case", *map(percent, found.by_method), percent(found.all))
    title = f"Attack by gradient estimator, accuracy in percent on the same {found.samples:,} images"
    return [(title, ("gradient through", *found.methods, "worst case"), [*lines, last])]


def _search(evaluation: Evaluation) -> list[Table]:
    lines = [
        (line.name, f"{percent(line.share)} {_span(line.interval)}", "yes" if line.chosen else "no")
        for line in ranking(evaluation)
    ]
    return [("Which gradient serves an attacker best", ("gradient through", "accuracy, %", "used above"), lines)]


def _classes(evaluation: Evaluation, classes: Sequence[str]) -> list[Table]:
    found = class_lines(evaluation, classes)
    lines = [
        (line.name, f"{line.samples:,}", percent(line.clean), f"{percent(line.worst)} {_span(line.interval)}")
        for line in extremes(found)
        if len(found) > 1
    ]
    return [("Classes apart", ("class", "images", "clean, %", "worst case, %"), lines)]


def _others(evaluation: Evaluation) -> list[Table]:
    return [
        (
            title,
            ("attack", "eps", "images", "accuracy, %"),
            [
                (line.name, format_eps(line.eps), f"{line.samples:,}", f"{percent(line.share)} {_span(line.interval)}")
                for line in lines
            ],
        )
        for title, lines in other_panels(evaluation)
    ]


def _section(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], said: str = "", texts: int = 1) -> str:
    """A heading, a sentence and a table; nothing at all without lines."""
    rows = [table_row([_safe(text) for text in line]) for line in lines]
    table = "\n".join([table_row([_safe(text) for text in head]), markdown_rule(len(head), texts), *rows])
    return "\n\n".join(part for part in (f"## {_safe(title)}", _safe(said), table) if part) if rows else ""


def _safe(text: str) -> str:
    """A text on one line, in which nothing is markup."""
    return re.sub(r"([\\`*<])", r"\\\1", inline(text))


def _span(interval: Interval) -> str:
    return f"[{percent(interval.low)}, {percent(interval.high)}]"
