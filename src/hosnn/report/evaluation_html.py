"""The report of one evaluation: one self-contained HTML page.  A pure function of the result."""

from collections.abc import Sequence

from hosnn.evaluation.examples import Example
from hosnn.report import evaluation_figures as figures
from hosnn.report.evaluation_summary import finding, remarks
from hosnn.report.evaluation_tables import (
    AttackLine,
    ClassLine,
    attack_lines,
    checks,
    class_lines,
    duration,
    extremes,
    facts,
    other_panels,
    passes,
    ranking,
)
from hosnn.report.page import Picture, example_pictures, page, picture, protocol_texts
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import Interval
from hosnn.results.text import percent
from hosnn.robustness.threats import format_eps

MARKS = {"pass": "✓", "warn": "!", "fail": "✗"}
"""Beside the word, so that a finding needs no colour."""


def render_evaluation(evaluation: Evaluation, examples: Sequence[Example] = (), classes: Sequence[str] = ()) -> str:
    """The report of one model under one protocol.

    examples  from `close_up`: attacked images to show
    classes   names of the classes, by number; numbers are shown without
    """
    lines = attack_lines(evaluation)
    classed = class_lines(evaluation, classes)
    found = checks(evaluation)
    forward, backward = evaluation.passes()
    return page(
        "evaluation.html",
        title=f"{evaluation.model}: {evaluation.protocol}",
        first=finding(evaluation),
        verdict=evaluation.verdict if evaluation.checks else "none",
        marks=MARKS,
        subject=f"Data: {evaluation.dataset}. Threat: {evaluation.threat}.",
        notes=remarks(evaluation),
        tiles=_tiles(evaluation, lines),
        lines=lines,
        shown={
            "estimator": any(line.estimator for line in lines),
            "steps": any(line.steps for line in lines),
            "passes": bool(lines[-1].forward or lines[-1].backward),
        },
        cascade=evaluation.cascade,
        checks=found,
        curves=_curves(evaluation),
        matrix=attack_matrix(evaluation),
        search=_search(evaluation),
        classes=_classes(evaluation, classed, classes),
        class_lines=extremes(classed) if len(classed) > 1 else [],
        examples=example_pictures(examples),
        panels=other_panels(evaluation),
        cost=f"{passes(forward, backward)}; {duration(evaluation.seconds)} of wall time." if forward else "",
        protocols=protocol_texts([evaluation]),
        facts=facts(evaluation),
        skipped=evaluation.skipped,
        percent=percent,
        span=_span,
        duration=duration,
        format_eps=format_eps,
    )


def _tiles(evaluation: Evaluation, lines: Sequence[AttackLine]) -> list[tuple[str, str, str]]:
    """The numbers to see first: what, number, what stands small below it."""
    clean, worst = lines[0], lines[-1]
    tiles = [
        ("clean images", f"{percent(clean.share)} %", _span(clean.interval)),
        ("worst case per image", f"{percent(worst.share)} %", _span(worst.interval)),
    ]
    if evaluation.checks:
        counts = {severity: sum(c.severity == severity for c in evaluation.checks) for severity in MARKS}
        below = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
        tiles.append(("checks", f"{MARKS[evaluation.verdict]} {evaluation.verdict}", below))
    tiles.append(("attacks", str(len(evaluation.rows)), duration(evaluation.seconds)))
    return tiles


def _curves(evaluation: Evaluation) -> list[Picture]:
    count = len(evaluation.curve[0].predictions) if evaluation.curve else 0
    eps = picture(
        "Accuracy as the attacker's budget grows",
        f"On {count:,} images. The band is the 95 % interval, the upright line the budget of this evaluation. A sound "
        "evaluation falls to chance or below as eps grows; a curve that stays high means that the attack fails, not "
        "that the network holds.",
        figures.eps_curve(evaluation),
    )
    rows = evaluation.panel("steps")
    steps = picture(
        "Accuracy as the attacker takes more steps",
        f"On {min((len(row.predictions) for row in rows), default=0):,} images. The curve should be flat at its right "
        "end: where it still falls, more steps would take more images, and the worst case above comes out too high.",
        figures.steps_curve(evaluation),
    )
    return [*eps, *steps]


def _search(evaluation: Evaluation) -> list[Picture]:
    lines = ranking(evaluation)
    if not lines:
        return []
    ends = f" The weakest leaves {percent(lines[-1].share)} %, the strongest {percent(lines[0].share)} %."
    return picture(
        "Which gradient serves an attacker best",
        "One short attack through each gradient estimator, the strongest on top; fewer images left means a stronger "
        f"attack. The thin line is the 95 % interval.{ends if len(lines) > 1 else ''}",
        figures.search_bars(evaluation),
    )


def _classes(evaluation: Evaluation, lines: Sequence[ClassLine], names: Sequence[str]) -> list[Picture]:
    if len(lines) < 2:
        return []
    first, last = lines[0], lines[-1]
    cut = "" if len(extremes(lines)) == len(lines) else " Shown are the ten most and the ten least robust classes."
    return picture(
        "Classes apart",
        f"Most robust: {first.name} ({percent(first.worst)} % of {first.samples:,} images withstand every attack); "
        f"least robust: {last.name} ({percent(last.worst)} % of {last.samples:,}). Pale: clean images; dark, and the "
        f"number at the right: worst case over all attacks; the thin line is its 95 % interval.{cut}",
        figures.class_bars(evaluation, names),
    )


def _span(interval: Interval) -> str:
    return f"[{percent(interval.low)}, {percent(interval.high)}]"
