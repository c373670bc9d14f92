"""One evaluation as lines of tables: plain values that the page, the Markdown file and the pictures share.

Shares and intervals are fractions in [0, 1].
"""

from collections.abc import Sequence
from typing import NamedTuple

from hosnn.report.reproduction_tables import survivors
from hosnn.results.check import SEVERITIES, Check
from hosnn.results.evaluation import AttackResult, Evaluation
from hosnn.results.statistics import Interval, proportion, wilson
from hosnn.results.text import describe_machine

DRAWN = ("search", "eps", "steps", "matrix")
"""Panels with a place of their own; any other is shown as a table."""

TITLES = {"controls": "Controls", "decision": "Attacks that see only the predicted class"}

SPIKING = {
    "hosnn": "spiking layers of this package",
    "foreign": "spiking layers of another library",
    "none": "no spikes seen",
    "unknown": "not looked into",
}


class AttackLine(NamedTuple):
    """What one attack left.

    threat             empty if it is the evaluation's own
    taken              images that it took beyond those before it; None for the line of all together
    forward, backward  samples sent through the model; None where there is nothing to count, seconds likewise
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


class PanelLine(NamedTuple):
    """One attack of a panel, on the panel's images.

    chosen  whether the protocol's attacks look at the model the same way (of the panel "search")
    """

    name: str
    eps: float
    steps: int
    share: float
    interval: Interval
    samples: int
    chosen: bool


class ClassLine(NamedTuple):
    """The images of one class: how many, and the shares right when clean and after every attack."""

    name: str
    samples: int
    clean: float
    worst: float
    interval: Interval


def attack_lines(evaluation: Evaluation) -> list[AttackLine]:
    """Clean images first, then the attacks in order, then all of them together."""
    robust = survivors(evaluation, "clean")
    lost = evaluation.samples - sum(robust)
    lines = [
        AttackLine(
            "none (clean images)",
            *("", "", 0, ""),
            evaluation.clean_accuracy,
            evaluation.interval(),
            lost,
            *(None, None, None),
        )
    ]
    for row in evaluation.rows:
        after = [alive and right for alive, right in zip(robust, evaluation.correct_after(row), strict=True)]
        lines.append(
            AttackLine(
                row.attack,
                row.kind,
                row.estimator,
                row.steps,
                row.threat if row.threat != evaluation.threat else "",
                evaluation.accuracy(row.attack),
                evaluation.interval(row.attack),
                sum(robust) - sum(after),
                row.forward,
                row.backward,
                row.seconds,
            )
        )
        robust = after
    forward, backward = (sum(getattr(row, side) for row in evaluation.rows) for side in ("forward", "backward"))
    seconds = sum(row.seconds for row in evaluation.rows)
    worst = AttackLine(
        "worst case per image",
        *("", "", 0, ""),
        evaluation.worst_case,
        evaluation.worst_interval,
        None,
        forward,
        backward,
        seconds,
    )
    return [*lines, worst]


def panel_lines(evaluation: Evaluation, name: str) -> list[PanelLine]:
    """The attacks of a panel in their order."""
    used = {row.estimator for row in evaluation.rows}
    lines = []
    for row in evaluation.panel(name):
        right = evaluation.correct_after(row)
        share, span = proportion(right), wilson(sum(right), len(right))
        named = row.attack if name != "search" else row.estimator or row.attack
        lines.append(PanelLine(named, row.eps, row.steps, share, span, len(right), row.estimator in used))
    return lines


def ranking(evaluation: Evaluation) -> list[PanelLine]:
    """The ways of differentiating the model that the search tried, the strongest first."""
    return sorted(panel_lines(evaluation, "search"), key=lambda line: line.share)


def step_curves(evaluation: Evaluation) -> dict[str, list[PanelLine]]:
    """Accuracy against steps, one curve per attack and estimator, fewest steps first."""
    rows = evaluation.panel("steps")
    lines = panel_lines(evaluation, "steps")
    several = len({row.estimator for row in rows}) > 1
    curves: dict[str, list[PanelLine]] = {}
    for row, line in zip(rows, lines, strict=True):
        curves.setdefault(_curve_name(row, several), []).append(line)
    return {name: sorted(curve, key=lambda line: line.steps) for name, curve in curves.items()}


def class_lines(evaluation: Evaluation, classes: Sequence[str] = ()) -> list[ClassLine]:
    """The classes among the images, the most robust first; named by number where `classes` has no name."""
    clean, robust = survivors(evaluation, "clean"), evaluation.robust
    lines = []
    for label in sorted(set(evaluation.labels)):
        rows = [at for at, each in enumerate(evaluation.labels) if each == label]
        left = sum(robust[at] for at in rows)
        name = classes[label] if label < len(classes) else f"class {label}"
        share = sum(clean[at] for at in rows) / len(rows)
        lines.append(ClassLine(name, len(rows), share, left / len(rows), wilson(left, len(rows))))
    return sorted(lines, key=lambda line: -line.worst)


def extremes(lines: Sequence[ClassLine], most: int = 20) -> list[ClassLine]:
    """The classes to show: all, or of very many the most and the least robust."""
    return list(lines) if len(lines) <= most else [*lines[: most // 2], *lines[-(most // 2) :]]


def checks(evaluation: Evaluation) -> list[Check]:
    """The checks, what failed first."""
    return sorted(evaluation.checks, key=lambda check: -SEVERITIES.index(check.severity))


def other_panels(evaluation: Evaluation) -> list[tuple[str, list[PanelLine]]]:
    """The panels that have no picture of their own, each with its title."""
    return [
        (TITLES.get(panel.name, panel.name), panel_lines(evaluation, panel.name))
        for panel in evaluation.panels
        if panel.rows and panel.name not in DRAWN
    ]


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """All that is needed to say where the numbers come from, and to find them again."""
    found = evaluation
    forward, backward = found.passes()
    network = found.network
    inside = [
        SPIKING.get(network.spiking, network.spiking),
        f"{network.layers} layers" if network.layers else "",
        f"{network.adaptive} of them with an adapting threshold" if network.layers else "",
        "" if network.gradient else "no gradient",
        "random" if network.random else "",
    ]
    known = [
        ("Model", found.model),
        ("Model SHA-256", found.model_sha256 or "a function without weights"),
        ("Network", ", ".join(part for part in inside if part)),
        ("Parameters", f"{network.parameters:,}" if network.parameters else ""),
        ("Data", f"{found.dataset}, {found.samples:,} images"),
        ("Data SHA-256", found.dataset_sha256 or "not a named data set"),
        ("Protocol", f"{found.protocol}: {found.description}"),
        ("Settings SHA-256", found.settings),
        ("Threat", found.threat),
        ("Attack seed", str(found.seed)),
        ("Versions", ", ".join(f"{name} {what}" for name, what in found.versions.items())),
        ("Hardware", describe_machine(found.machine)),
        ("Wall time", duration(found.seconds)),
        ("Passes", passes(forward, backward) if forward or backward else ""),
    ]
    return [(name, text) for name, text in known if text]


def passes(forward: int, backward: int) -> str:
    """Samples sent through the model, in words."""
    return f"{forward:,} images forward, {backward:,} backward through the model, panels included"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _curve_name(row: AttackResult, several: bool) -> str:
    method = row.method or row.attack.rpartition("-")[0] or row.attack
    return f"{method}, {row.estimator}" if several and row.estimator else method
