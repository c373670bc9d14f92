"""One evaluation as rows of tables: plain values that the page, the Markdown file and the figures share.

Shares and intervals are fractions in [0, 1].
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hosnn.report.phrases import duration, passes
from hosnn.results.check import SEVERITIES, Check
from hosnn.results.evaluation import AttackResult, Evaluation
from hosnn.results.statistics import Interval, proportion, wilson
from hosnn.results.text import describe_machine

PANELS_WITH_SECTION = ("search", "eps", "steps", "matrix")
"""Panels that have a section of their own; any other is shown as a table."""

TITLES = {
    "8bit": "Adversarial images of 8 bits",
    "controls": "Controls",
    "decision": "Attacks that see only the predicted class",
}

SPIKING = {
    "hosnn": "spiking layers of this package",
    "foreign": "spikes that do not come from this package",
    "none": "no spikes found",
    "unknown": "not known whether it spikes",
}


class AttackRow(NamedTuple):
    """The images that are still classified correctly after an attack, and what the attack cost.

    threat             "" if it is the evaluation's own
    broken             images that this attack broke and none before it; None in the row of all attacks together
    forward, backward  samples sent through the model; None, as seconds, where nothing was attacked
    """

    name: str
    kind: str
    estimator: str
    steps: int
    threat: str
    share: float
    interval: Interval
    broken: int | None
    forward: int | None
    backward: int | None
    seconds: float | None


class PanelRow(NamedTuple):
    """One attack of a panel, on the panel's images.

    used  in the panel "search": whether attacks of the protocol use this gradient estimator
    """

    name: str
    eps: float
    steps: int
    share: float
    interval: Interval
    samples: int
    used: bool


class ClassRow(NamedTuple):
    """One class: its number of images, and the shares correct without attack and after every attack."""

    name: str
    samples: int
    clean: float
    worst: float
    interval: Interval


def attack_rows(evaluation: Evaluation) -> list[AttackRow]:
    """Clean images first, then the attacks in order, then all of them together."""
    clean, *attacks, worst = (_attack_row(record, evaluation.threat) for record in evaluation.to_records())
    return [
        clean._replace(name="none (clean images)", forward=None, backward=None, seconds=None),
        *attacks,
        worst._replace(name="worst case per image", broken=None),
    ]


def panel_rows(evaluation: Evaluation, panel: str) -> list[PanelRow]:
    """The attacks of a panel in their order."""
    used = {attack.estimator for attack in evaluation.rows}
    rows = []
    for attack in evaluation.panel(panel):
        correct = evaluation.correct_after(attack)
        name = attack.estimator or attack.attack if panel == "search" else attack.attack
        rows.append(
            PanelRow(
                name=name,
                eps=attack.eps,
                steps=attack.steps,
                share=proportion(correct),
                interval=wilson(sum(correct), len(correct)),
                samples=len(correct),
                used=attack.estimator in used,
            )
        )
    return rows


def ranking(evaluation: Evaluation) -> list[PanelRow]:
    """The gradient estimators that the search tried, the best for the attacker (lowest accuracy) first."""
    return sorted(panel_rows(evaluation, "search"), key=lambda row: row.share)


def step_curves(evaluation: Evaluation) -> dict[str, list[PanelRow]]:
    """Accuracy against steps, one curve per attack and estimator, fewest steps first."""
    attacks = evaluation.panel("steps")
    several_estimators = len({attack.estimator for attack in attacks}) > 1
    curves: dict[str, list[PanelRow]] = {}
    for attack, row in zip(attacks, panel_rows(evaluation, "steps"), strict=True):
        curves.setdefault(_curve_name(attack, several_estimators), []).append(row)
    return {name: sorted(curve, key=lambda row: row.steps) for name, curve in curves.items()}


def class_rows(evaluation: Evaluation, classes: Sequence[str] = ()) -> list[ClassRow]:
    """The classes among the images, the most robust first; "class 7" where `classes` has no name."""
    clean, robust = evaluation.correct_when_clean, evaluation.robust
    rows = []
    for label in sorted(set(evaluation.labels)):
        positions = [position for position, own_label in enumerate(evaluation.labels) if own_label == label]
        num_robust = sum(robust[position] for position in positions)
        name = classes[label] if label < len(classes) else f"class {label}"
        clean_share = sum(clean[position] for position in positions) / len(positions)
        interval = wilson(num_robust, len(positions))
        rows.append(ClassRow(name, len(positions), clean_share, num_robust / len(positions), interval))
    return sorted(rows, key=lambda row: -row.worst)


def most_and_least_robust(rows: Sequence[ClassRow], most: int = 20) -> list[ClassRow]:
    """The classes to show: all, or half of `most` from either end."""
    return list(rows) if len(rows) <= most else [*rows[: most // 2], *rows[-(most // 2) :]]


def sorted_checks(evaluation: Evaluation) -> list[Check]:
    """The checks, failed ones first."""
    return sorted(evaluation.checks, key=lambda check: -SEVERITIES.index(check.severity))


def other_panels(evaluation: Evaluation) -> list[tuple[str, list[PanelRow]]]:
    """The panels without a section of their own, each with its title."""
    return [
        (TITLES.get(panel.name, panel.name), panel_rows(evaluation, panel.name))
        for panel in evaluation.panels
        if panel.rows and panel.name not in PANELS_WITH_SECTION
    ]


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Where the numbers come from, and what is needed to compute them again: (name, text)."""
    forward, backward = evaluation.passes()
    network = evaluation.network
    network_parts = [
        f"{SPIKING.get(network.spiking, network.spiking)}{f' ({network.evidence})' if network.evidence else ''}",
        f"{network.layers} layers" if network.layers else "",
        f"{network.adaptive} of them with an adapting threshold" if network.layers else "",
        "" if network.gradient else "no gradient",
        "random" if network.random else "",
        "differentiated by its own gradient only" if network.own_gradient_only and network.gradient else "",
    ]
    facts_or_empty = [
        ("Model", evaluation.model),
        ("Model SHA-256", evaluation.model_sha256 or "a function without weights"),
        ("Network", ", ".join(part for part in network_parts if part)),
        ("Parameters", f"{network.parameters:,}" if network.parameters else ""),
        ("Data", f"{evaluation.dataset}, {evaluation.samples:,} images"),
        ("Data SHA-256", evaluation.dataset_sha256 or "not a named data set"),
        ("Protocol", f"{evaluation.protocol}: {evaluation.description}"),
        ("Settings SHA-256", evaluation.settings),
        ("Threat", evaluation.threat),
        ("Attack seed", str(evaluation.seed)),
        ("Versions", ", ".join(f"{package} {version}" for package, version in evaluation.versions.items())),
        ("Hardware", describe_machine(evaluation.machine)),
        ("Wall time", duration(evaluation.seconds)),
        ("Passes", passes(forward, backward) if forward or backward else ""),
    ]
    return [(name, text) for name, text in facts_or_empty if text]


def _attack_row(record: Mapping[str, Any], threat: str) -> AttackRow:
    return AttackRow(
        name=record["attack"],
        threat=record["threat"] if record["threat"] != threat else "",
        share=record["accuracy"],
        interval=Interval(record["low"], record["high"]),
        **{key: record[key] for key in ("kind", "estimator", "steps", "broken", "forward", "backward", "seconds")},
    )


def _curve_name(attack: AttackResult, several_estimators: bool) -> str:
    method = attack.method or attack.attack
    return f"{method}, {attack.estimator}" if several_estimators and attack.estimator else method
