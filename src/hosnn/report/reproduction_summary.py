"""What a comparison says in plain words, computed from its numbers: the finding, and what to hold against it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hosnn.report.reproduction_tables import Value, measured, published, survivors, value
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell, NetworkKind, ReproductionResult, groups
from hosnn.results.roles import Strength
from hosnn.results.statistics import wilson
from hosnn.results.text import percent
from hosnn.robustness.threats import Threat, format_eps

CONTROLS = ("clean", "noise")
NOTABLE = 0.02  # differences of accuracy below this are not remarked on

Column = tuple[str, str, str]


class Compared(NamedTuple):
    """Accuracies of one network under two attacks, on the images that both saw."""

    first: float
    second: float
    samples: int


def headline(comparison: ReproductionResult) -> tuple[str, str]:
    """The finding in one sentence, and what the same training does for the plain neuron (empty if not measured)."""
    every = groups(comparison)
    lead = max(every, key=lambda kind: (kind.neuron != "LIF", kind.training != "clean"), default=None)
    if lead is None:
        return "No network was measured.", ""
    columns = [c for c in (authors_column(comparison, lead), strongest_column(comparison, lead)) if c]
    if not columns:
        return f"{_trained(lead)} was not attacked yet, so nothing is known of its robustness.", ""
    found = [each for column in columns if (each := _maybe(every[lead], column))]
    parts = [
        f"under {_attack(column, every[lead])}, {'it keeps' if at else f'{_trained(lead)} keeps'} {_share(each)}"
        for at, (column, each) in enumerate(zip(columns, found, strict=True))
    ]
    first = "; ".join(parts)
    plain = NetworkKind("LIF", lead.training)
    if plain == lead or plain not in every:
        return f"{first[0].upper()}{first[1:]}.", ""
    beside = [value(every[plain], protocol, attack) for _, protocol, attack in columns]
    if None in beside:
        return f"{first[0].upper()}{first[1:]}.", ""
    others = [each for each in beside if each]
    second = (
        f"{plain.neuron} trained the same way keeps {' and '.join(f'{percent(each.mean)} %' for each in others)}: "
        f"{lead.neuron} is {' and '.join(_ahead(mine, its) for mine, its in zip(found, others, strict=True))}."
    )
    return f"{first[0].upper()}{first[1:]}.", second


def notes(comparison: ReproductionResult) -> list[str]:
    """What a careful reader would hold against the numbers."""
    every = groups(comparison)
    found = []
    if comparison.demonstration:
        found.append(
            f"A demonstration: the networks were trained and measured on {comparison.dataset}, a small part of the "
            "data. Expect other numbers from the full data set, and do not set these against published ones."
        )
    found += _uncertainty(comparison)
    if not any(_strength(comparison, column) > Strength.FIRST_LOOK.rank for column in _attacked(comparison, every)):
        found.append(
            "No stronger protocol was run. The numbers above come from weak attacks, so true robustness is lower or "
            "equal: read them as upper bounds."
        )
    for kind, cells in every.items():
        found += _weakness(comparison, kind, cells)
    seeds = {len({cell.seed for cell in cells}) for cells in every.values()}
    if 1 in seeds:
        found.append(
            "At least one network was trained with one seed only. The intervals tell how far the choice of images "
            "matters, not how far another training would land elsewhere; three seeds or more carry a headline."
        )
    for number in comparison.published:
        kind = NetworkKind(number.neuron, number.training)
        for column in comparison.columns:
            here = _maybe(every.get(kind, []), column) if published(comparison, kind, column) is number else None
            if here and abs(here.mean - number.accuracy / 100) > NOTABLE:
                found.append(
                    f"{_trained(kind)}, {column[0]}: {percent(here.mean)} % here, {number.accuracy:g} % published "
                    f"({number.source}). Epochs, batch order and checkpoint choice differ from the authors'."
                )
    return found


def authors_column(comparison: ReproductionResult, kind: NetworkKind) -> Column | None:
    """The strongest column of the authors' protocol: PGD-7 if it is there, else the last."""
    columns = [c for c in _attacked(comparison, [kind]) if _is_published(comparison, c)]
    return next((c for c in columns if c[2] == "PGD-7"), columns[-1] if columns else None)


def strongest_column(comparison: ReproductionResult, kind: NetworkKind) -> Column | None:
    """The strongest column of our own protocols, the worst case before single attacks."""
    columns = [c for c in _attacked(comparison, [kind]) if not _is_published(comparison, c)]
    order = {c: (_strength(comparison, c), c[2] == "worst", place) for place, c in enumerate(columns)}
    return max(columns, key=order.__getitem__, default=None)


def paired(cells: Iterable[Cell], first: Column, second: Column) -> Compared | None:
    """Accuracies under two columns on shared images, averaged over seeds; None where one of them was not run."""
    pairs = []
    for cell in cells:
        evaluations = [cell.evaluations.get(column[1]) for column in (first, second)]
        if all(measured(e, column[2]) for e, column in zip(evaluations, (first, second), strict=True)):
            mine, its = (
                dict(zip(e.index, survivors(e, column[2]), strict=True))
                for e, column in zip(evaluations, (first, second), strict=True)
                if e
            )
            pairs.append([(mine[index], its[index]) for index in mine if index in its])
    if not pairs or not all(pairs):
        return None
    shares = [[sum(pair[side] for pair in one) / len(one) for one in pairs] for side in (0, 1)]
    return Compared(sum(shares[0]) / len(pairs), sum(shares[1]) / len(pairs), len(pairs[0]))


def budget(threat: str) -> str:
    """A threat in words, e.g. "8/255"."""
    ball = Threat.parse(threat).ball
    return format_eps(ball.eps) if ball.name == "linf" else f"{ball.name} {format_eps(ball.eps)}"


def _attacked(comparison: ReproductionResult, kinds: Iterable[NetworkKind]) -> list[Column]:
    every = groups(comparison)
    return [c for c in comparison.columns if c[2] not in CONTROLS and any(_maybe(every[kind], c) for kind in kinds)]


def _strength(comparison: ReproductionResult, column: Column) -> int:
    """Rank of the strength of the column's protocol; one that is not rated counts as the strongest."""
    evaluation = next(_evaluations(comparison.cells, column[1]), None)
    strength = None if evaluation is None else evaluation.strength
    return len(Strength) if strength is None else strength.rank


def _is_published(comparison: ReproductionResult, column: Column) -> bool:
    """Whether the column's attacks are those of the publication."""
    return _strength(comparison, column) == Strength.PUBLISHED_ATTACKS.rank


def _uncertainty(comparison: ReproductionResult) -> list[str]:
    """A note on protocols whose accuracies are known no better than to a notable difference."""
    widest: dict[str, tuple[float, int]] = {}
    for cells in groups(comparison).values():
        for column in comparison.columns:
            found = _maybe(cells, column)
            if found:
                low, high = wilson(round(found.mean * found.samples), found.samples)
                widest[column[1]] = max(widest.get(column[1], (0.0, 0)), ((high - low) / 2, found.samples))
    small = [
        f"{samples:,} images under the {name} protocol (up to {100 * half:.1f} points either way)"
        for name, (half, samples) in widest.items()
        if half > NOTABLE
    ]
    return [f"Small samples leave each accuracy uncertain: {' and '.join(small)}."] if small else []


def _weakness(comparison: ReproductionResult, kind: NetworkKind, cells: Sequence[Cell]) -> list[str]:
    """Whether the authors' protocol and our strongest attack disagree about a network, on the same images."""
    first, second = authors_column(comparison, kind), strongest_column(comparison, kind)
    both = paired(cells, first, second) if first and second else None
    if first is None or second is None or both is None or abs(both.first - both.second) <= NOTABLE:
        return []
    numbers = f"{percent(both.first)} % and {percent(both.second)} % of the {both.samples:,} images that both saw"
    if both.first > both.second:
        return [
            f"{_trained(kind)} loses {100 * (both.first - both.second):.1f} points more to {second[0]} than to "
            f"{first[0]} ({numbers}): the authors' attack is too weak there and flatters it."
        ]
    wider = any("/step" in cell.evaluations[first[1]].threat for cell in cells if first[1] in cell.evaluations)
    reason = " It perturbs every time step on its own, which is a larger threat." if wider else ""
    return [
        f"{_trained(kind)} loses {100 * (both.second - both.first):.1f} points more to {first[0]} than to {second[0]} "
        f"({numbers}).{reason}"
    ]


def _attack(column: Column, cells: Iterable[Cell]) -> str:
    heading, protocol, attack = column
    evaluation = next(_evaluations(cells, protocol))
    at = budget(evaluation.threat)
    if evaluation.strength is Strength.PUBLISHED_ATTACKS:
        return f"the authors' {'worst attack' if attack == 'worst' else attack} at {at}"
    strong = "a first look of our own" if evaluation.strength is Strength.FIRST_LOOK else "a stronger attack"
    return f"{strong} at {at} ({heading})"


def _evaluations(cells: Iterable[Cell], protocol: str) -> Iterator[Evaluation]:
    return (cell.evaluations[protocol] for cell in cells if protocol in cell.evaluations)


def _maybe(cells: Iterable[Cell], column: Column) -> Value | None:
    return value(cells, column[1], column[2])


def _share(found: Value) -> str:
    seeds = f" (mean of {len(found.seeds)} seeds)" if len(found.seeds) > 1 else ""
    return f"{percent(found.mean)} % of {found.samples:,} images{seeds}"


def _ahead(mine: Value, its: Value) -> str:
    points = 100 * (mine.mean - its.mean)
    overlap = mine.low <= its.high and its.low <= mine.high
    spread = "intervals" if len(mine.seeds) == len(its.seeds) == 1 else "ranges over seeds"
    how = f"{spread} {'overlap' if overlap else 'do not overlap'}"
    return f"{abs(points):.1f} points {'ahead' if points >= 0 else 'behind'} ({how})"


def _trained(kind: NetworkKind) -> str:
    return f"{kind.neuron} trained {'on clean images' if kind.training == 'clean' else f'with {kind.training}'}"
