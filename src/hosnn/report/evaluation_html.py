"""The report of one evaluation: one self-contained HTML page.  A pure function of the result."""

from collections.abc import Sequence

from hosnn.evaluation.examples import Example
from hosnn.report import evaluation_figures as figures
from hosnn.report.evaluation_summary import finding, limitations
from hosnn.report.evaluation_tables import (
    AttackRow,
    ClassRow,
    attack_rows,
    class_rows,
    facts,
    most_and_least_robust,
    other_panels,
    ranking,
    sorted_checks,
)
from hosnn.report.page import Picture, example_pictures, page, pictures_of, protocol_texts
from hosnn.report.phrases import duration, interval_text, passes, size
from hosnn.results.attack_matrix import attack_matrix
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import percent

MARKS = {"pass": "✓", "warn": "!", "fail": "✗"}
"""Shown beside the severity, so that a reader needs no colour to see it."""


def render_evaluation(evaluation: Evaluation, examples: Sequence[Example] = (), classes: Sequence[str] = ()) -> str:
    """The report of one model under one protocol.

    examples  attacked images to show, from `evaluation.examples`
    classes   names of the classes, by number; without a name the number is shown
    """
    attacks = attack_rows(evaluation)
    by_class = class_rows(evaluation, classes)
    forward, backward = evaluation.passes()
    return page(
        "evaluation.html",
        title=f"{evaluation.model}: {evaluation.protocol}",
        finding=finding(evaluation),
        verdict=evaluation.verdict,
        marks=MARKS,
        subject=f"Data: {evaluation.dataset}. Threat: {evaluation.threat}.",
        limitations=limitations(evaluation),
        tiles=_tiles(evaluation, attacks),
        attacks=attacks,
        shown={
            "estimator": any(row.estimator for row in attacks),
            "steps": any(row.steps for row in attacks),
            "passes": bool(attacks[-1].forward or attacks[-1].backward),
        },
        cascade=evaluation.cascade,
        checks=sorted_checks(evaluation),
        curves=_curves(evaluation),
        matrix=attack_matrix(evaluation),
        search=_search(evaluation),
        class_pictures=_class_pictures(evaluation, by_class, classes),
        class_rows=most_and_least_robust(by_class) if len(by_class) > 1 else [],
        examples=example_pictures(examples),
        panels=other_panels(evaluation),
        cost=f"{passes(forward, backward)}; {duration(evaluation.seconds)} of wall time." if forward else "",
        protocols=protocol_texts([evaluation]),
        facts=facts(evaluation),
        skipped=evaluation.skipped,
        percent=percent,
        interval_text=interval_text,
        duration=duration,
        size=lambda eps: size(eps, evaluation.threat),
    )


def _tiles(evaluation: Evaluation, attacks: Sequence[AttackRow]) -> list[tuple[str, str, str]]:
    """The main numbers: what each is, the number, and a smaller line below it."""
    clean, worst = attacks[0], attacks[-1]
    tiles = [
        ("clean images", f"{percent(clean.share)} %", interval_text(clean.interval)),
        ("worst case per image", f"{percent(worst.share)} %", interval_text(worst.interval)),
    ]
    if evaluation.checks:
        counts = {severity: sum(check.severity == severity for check in evaluation.checks) for severity in MARKS}
        small_line = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
        tiles.append(("checks", f"{MARKS[evaluation.verdict]} {evaluation.verdict}", small_line))
    tiles.append(("attacks", str(len(evaluation.rows)), duration(evaluation.seconds)))
    return tiles


def _curves(evaluation: Evaluation) -> list[Picture]:
    samples = len(evaluation.curve[0].predictions) if evaluation.curve else 0
    eps = pictures_of(
        "Accuracy as the attacker's budget grows",
        f"On {samples:,} images. The band is the 95 % interval, the vertical line the budget of this evaluation. A "
        "sound evaluation falls to chance or below as eps grows; a curve that stays high means that the attack fails, "
        "not that the network is robust.",
        figures.eps_curve(evaluation),
    )
    samples = min((len(attack.predictions) for attack in evaluation.panel("steps")), default=0)
    steps = pictures_of(
        "Accuracy as the attacker takes more steps",
        f"On {samples:,} images. The curve should be flat at its right end: where it still falls, more steps would "
        "break more images, and the worst case above is too high.",
        figures.steps_curve(evaluation),
    )
    return [*eps, *steps]


def _search(evaluation: Evaluation) -> list[Picture]:
    rows = ranking(evaluation)
    if not rows:
        return []
    extremes = f" The weakest leaves {percent(rows[-1].share)} %, the strongest {percent(rows[0].share)} %."
    return pictures_of(
        "Strongest gradient estimators",
        "A short attack through each gradient estimator, the strongest on top; lower accuracy means a stronger "
        f"attack. The thin line is the 95 % interval.{extremes if len(rows) > 1 else ''}",
        figures.search_bars(evaluation),
    )


def _class_pictures(evaluation: Evaluation, rows: Sequence[ClassRow], names: Sequence[str]) -> list[Picture]:
    if len(rows) < 2:
        return []
    most, least = rows[0], rows[-1]
    truncated = (
        ""
        if len(most_and_least_robust(rows)) == len(rows)
        else " Shown are the ten most and the ten least robust classes."
    )
    return pictures_of(
        "Accuracy by class",
        f"Most robust: {most.name} ({percent(most.worst)} % of {most.samples:,} images withstand every attack); "
        f"least robust: {least.name} ({percent(least.worst)} % of {least.samples:,}). Pale: clean images; dark, and "
        f"the number on the right: worst case over all attacks; the thin line is its 95 % interval.{truncated}",
        figures.class_bars(evaluation, names),
    )
