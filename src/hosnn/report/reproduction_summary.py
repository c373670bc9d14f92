"""What a reproduction shows in plain words, computed from its numbers: the finding, and what limits it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hosnn.report.phrases import NOTABLE, budget
from hosnn.report.reproduction_tables import (
    CLEAN,
    WORST,
    Column,
    MeasuredAccuracy,
    columns,
    correct_samples,
    is_published,
    measured_accuracy,
    published_number,
    was_run,
)
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell, NetworkKind, ReproductionResult, cells_by_kind
from hosnn.results.roles import Strength
from hosnn.results.statistics import wilson
from hosnn.results.text import percent
from hosnn.robustness.balls import Ball
from hosnn.robustness.threats import Threat


class SharedAccuracies(NamedTuple):
    """Accuracies of one network under two attacks, on the `samples` images that both were run on."""

    first: float
    second: float
    samples: int


def finding(result: ReproductionResult) -> tuple[str, str]:
    """The finding in one sentence, and what the same training does for the plain neuron ("" if not measured)."""
    by_kind = cells_by_kind(result)
    lead = max(by_kind, key=lambda kind: (kind.neuron != "LIF", kind.training != "clean"), default=None)
    if lead is None:
        return "No network was measured.", ""
    shown = [column for column in (authors_column(result, lead), strongest_column(result, lead)) if column]
    if not shown:
        return f"{_trained(lead)} was not attacked yet, so nothing is known of its robustness.", ""
    accuracies = [accuracy for column in shown if (accuracy := measured_accuracy(by_kind[lead], column))]
    parts = [
        f"under {_attack(column, by_kind[lead])}, {'it keeps' if place else f'{_trained(lead)} keeps'} "
        f"{_of_images(accuracy)}"
        for place, (column, accuracy) in enumerate(zip(shown, accuracies, strict=True))
    ]
    sentence = "; ".join(parts)
    sentence = f"{sentence[0].upper()}{sentence[1:]}."
    plain = NetworkKind("LIF", lead.training)
    if plain == lead or plain not in by_kind:
        return sentence, ""
    plain_accuracies = [accuracy for column in shown if (accuracy := measured_accuracy(by_kind[plain], column))]
    if len(plain_accuracies) < len(shown):
        return sentence, ""
    leads = [_lead(ours, theirs) for ours, theirs in zip(accuracies, plain_accuracies, strict=True)]
    numbers = " and ".join(f"{percent(accuracy.mean)} %" for accuracy in plain_accuracies)
    return (
        sentence,
        f"{plain.neuron} trained the same way keeps {numbers}: {lead.neuron} is {' and '.join(leads)}.",
    )


def limitations(result: ReproductionResult) -> list[str]:
    """What limits the numbers, for a careful reader."""
    by_kind = cells_by_kind(result)
    limits = []
    if result.demonstration:
        limits.append(
            f"A demonstration: the networks were trained and measured on {result.dataset}, a small part of the "
            "data. Expect other numbers from the full data set, and do not compare these with published ones."
        )
    limits += _uncertainty(result)
    if not any(
        _strength(result, column) > Strength.FIRST_LOOK.rank for column in _attacked_columns(result, list(by_kind))
    ):
        limits.append(
            "No stronger protocol was run. The numbers above come from weak attacks, so true robustness is lower or "
            "equal: read them as upper bounds."
        )
    for kind, cells in by_kind.items():
        limits += _disagreement(result, kind, cells)
    if 1 in {len({cell.seed for cell in cells}) for cells in by_kind.values()}:
        limits.append(
            "At least one network was trained with one seed only. The intervals show how far the choice of test "
            "images matters, not how much another training run would differ; a claim needs three seeds or more."
        )
    for number in result.published:
        kind = NetworkKind(number.neuron, number.training)
        for column in columns(result):
            if published_number(result, kind, column) is not number:
                continue
            accuracy = measured_accuracy(by_kind.get(kind, []), column)
            if accuracy and abs(accuracy.mean - number.accuracy / 100) > NOTABLE:
                limits.append(
                    f"{_trained(kind)}, {column.heading}: {percent(accuracy.mean)} % here, {number.accuracy:g} % "
                    f"published ({number.source}). Epochs, batch order and checkpoint choice differ from the authors'."
                )
    return limits


def authors_column(result: ReproductionResult, kind: NetworkKind) -> Column | None:
    """The strongest attack of the authors' protocol, which is the last of its columns."""
    theirs = [column for column in _attacked_columns(result, [kind]) if is_published(result, column)]
    return theirs[-1] if theirs else None


def strongest_column(result: ReproductionResult, kind: NetworkKind) -> Column | None:
    """The strongest column of our own protocols, the worst case before single attacks.

    Where the authors' protocol was run, of the columns in the same ball, if there are any: other budgets cannot tell
    whether theirs is too weak.
    """
    ours = [column for column in _attacked_columns(result, [kind]) if not is_published(result, column)]
    authors = authors_column(result, kind)
    if authors:
        ours = [column for column in ours if _ball(result, column) == _ball(result, authors)] or ours
    order = {column: (_strength(result, column), column.attack == WORST, place) for place, column in enumerate(ours)}
    return max(ours, key=order.__getitem__, default=None)


def shared_accuracies(cells: Iterable[Cell], first: Column, second: Column) -> SharedAccuracies | None:
    """Accuracies under two attacks on shared images, averaged over seeds; None where one of them was not run."""
    by_seed = []
    for cell in cells:
        one, other = (cell.evaluation(column.protocol) for column in (first, second))
        if one and other and was_run(one, first.attack) and was_run(other, second.attack):
            by_order = (one.clean_tied is None) != (other.clean_tied is None)  # then the same way of counting ties
            correct = dict(zip(one.index, correct_samples(one, first.attack, by_order), strict=True))
            correct_too = dict(zip(other.index, correct_samples(other, second.attack, by_order), strict=True))
            by_seed.append([(correct[index], correct_too[index]) for index in correct if index in correct_too])
    if not by_seed or not all(by_seed):
        return None
    shares = [[sum(pair[side] for pair in pairs) / len(pairs) for pairs in by_seed] for side in (0, 1)]
    return SharedAccuracies(sum(shares[0]) / len(by_seed), sum(shares[1]) / len(by_seed), len(by_seed[0]))


def _attacked_columns(result: ReproductionResult, kinds: Sequence[NetworkKind]) -> list[Column]:
    """The columns that show an attack, not a control, and that were run on one of the networks at least."""
    by_kind = cells_by_kind(result)
    return [
        column
        for column in columns(result)
        if column.attack != CLEAN
        and not _is_control(result, column)
        and any(measured_accuracy(by_kind[kind], column) for kind in kinds)
    ]


def _is_control(result: ReproductionResult, column: Column) -> bool:
    """Whether a column shows a control (noise), which no attacker would choose."""
    return any(
        row.attack == column.attack and row.kind == "control"
        for evaluation in _evaluations(result.cells, column.protocol)
        for row in evaluation.rows
    )


def _strength(result: ReproductionResult, column: Column) -> int:
    """Rank of the strength of the column's protocol; one that is not rated counts as the strongest."""
    evaluation = next(_evaluations(result.cells, column.protocol), None)
    strength = None if evaluation is None else evaluation.strength
    return len(Strength) if strength is None else strength.rank


def _ball(result: ReproductionResult, column: Column) -> Ball | None:
    """The ball that a column's attacks stay in; None if it was not run."""
    evaluation = next(_evaluations(result.cells, column.protocol), None)
    return None if evaluation is None else Threat.parse(evaluation.threat).ball


def _uncertainty(result: ReproductionResult) -> list[str]:
    """A note on protocols whose accuracies are known no better than to a notable difference."""
    widest: dict[str, tuple[float, int]] = {}
    for cells in cells_by_kind(result).values():
        for column in columns(result):
            accuracy = measured_accuracy(cells, column)
            if accuracy:
                low, high = wilson(round(accuracy.mean * accuracy.samples), accuracy.samples)
                widest[column.protocol] = max(
                    widest.get(column.protocol, (0.0, 0)), ((high - low) / 2, accuracy.samples)
                )
    small = [
        f"{samples:,} images under the {name} protocol (up to {100 * half:.1f} points either way)"
        for name, (half, samples) in widest.items()
        if half > NOTABLE
    ]
    return [f"Small samples leave each accuracy uncertain: {' and '.join(small)}."] if small else []


def _disagreement(result: ReproductionResult, kind: NetworkKind, cells: Sequence[Cell]) -> list[str]:
    """A note if the authors' protocol and our strongest attack disagree about a network, on the same images."""
    authors, ours = authors_column(result, kind), strongest_column(result, kind)
    if authors is None or ours is None or _ball(result, authors) != _ball(result, ours):
        return []
    both = shared_accuracies(cells, authors, ours)
    if both is None or abs(both.first - both.second) <= NOTABLE:
        return []
    numbers = f"{percent(both.first)} % and {percent(both.second)} % of the {both.samples:,} images that both attacked"
    if both.first > both.second:
        return [
            f"{_trained(kind)} loses {100 * (both.first - both.second):.1f} points more to {ours.heading} than to "
            f"{authors.heading} ({numbers}): the authors' attack is too weak there and overstates its robustness."
        ]
    per_step = any(Threat.parse(evaluation.threat).per_step for evaluation in _evaluations(cells, authors.protocol))
    reason = " It perturbs every time step on its own, which is a larger threat." if per_step else ""
    return [
        f"{_trained(kind)} loses {100 * (both.second - both.first):.1f} points more to {authors.heading} than to "
        f"{ours.heading} ({numbers}).{reason}"
    ]


def _attack(column: Column, cells: Iterable[Cell]) -> str:
    """An attack as the finding names it, e.g. "the authors' PGD-7 at 8/255"."""
    evaluation = next(_evaluations(cells, column.protocol))
    at = budget(evaluation.threat)
    if evaluation.strength is Strength.PUBLISHED_ATTACKS:
        return f"the authors' {'worst attack' if column.attack == WORST else column.attack} at {at}"
    attack = "a short attack of our own" if evaluation.strength is Strength.FIRST_LOOK else "a stronger attack"
    return f"{attack} at {at} ({column.heading})"


def _evaluations(cells: Iterable[Cell], protocol: str) -> Iterator[Evaluation]:
    return (evaluation for cell in cells if (evaluation := cell.evaluation(protocol)))


def _of_images(accuracy: MeasuredAccuracy) -> str:
    seeds = f" (mean of {len(accuracy.seeds)} seeds)" if len(accuracy.seeds) > 1 else ""
    return f"{percent(accuracy.mean)} % accuracy on {accuracy.samples:,} images{seeds}"


def _lead(ours: MeasuredAccuracy, theirs: MeasuredAccuracy) -> str:
    """How far one accuracy is ahead of the other, and whether their intervals overlap."""
    points = 100 * (ours.mean - theirs.mean)
    overlap = ours.low <= theirs.high and theirs.low <= ours.high
    of_one_seed = {len(accuracy.seeds) == 1 for accuracy in (ours, theirs)}
    spreads = {True: "intervals", False: "ranges over seeds"}
    spread = spreads[of_one_seed.pop()] if len(of_one_seed) == 1 else "interval and range over seeds"
    how = f"{spread} {'overlap' if overlap else 'do not overlap'}"
    return f"{abs(points):.1f} points {'ahead' if points >= 0 else 'behind'} ({how})"


def _trained(kind: NetworkKind) -> str:
    return f"{kind.neuron} trained {'on clean images' if kind.training == 'clean' else f'with {kind.training}'}"
