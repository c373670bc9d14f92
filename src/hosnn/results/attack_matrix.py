"""Attack against gradient estimator, every pair in full on the same images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import proportion

OWN = "its own or none"
"""Heading for attacks that bring their own gradient estimator or use no gradient."""

LEAST_RANGE = 0.05  # of accuracy: differences below are not blown up to the whole range of shades


@dataclass(frozen=True)
class Matrix:
    """Accuracies on `samples` images, fractions in [0, 1]; None for a pair that was not run.

    cells            [estimator][method]
    by_estimator     share of images that no method takes, per estimator; by_method the same the other way round
    all              share of images that nothing here takes
    """

    methods: tuple[str, ...]
    estimators: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    by_estimator: tuple[float, ...]
    by_method: tuple[float, ...]
    all: float
    samples: int

    def heat(self, share: float) -> float:
        """0 for the highest accuracy among the cells, 1 for the lowest."""
        known = [cell for line in self.cells for cell in line if cell is not None]
        low, high = min(known), max(known)
        return min(1.0, max(0.0, (high - share) / max(high - low, LEAST_RANGE)))

    @property
    def strongest(self) -> float:
        """The lowest accuracy of one pair."""
        return min(cell for line in self.cells for cell in line if cell is not None)


def matrix(evaluation: Evaluation) -> Matrix | None:
    """The panel "matrix", None if the protocol has none.

    An image counts as kept by a whole line or column only if every attack in it leaves it right, so these shares are at
    most the least of theirs.
    """
    rows = evaluation.panel("matrix")
    if not rows:
        return None
    right: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        key = (row.estimator or OWN, row.method or row.attack)
        correct = evaluation.correct_after(row)
        right[key] = _both((right[key], correct)) if key in right else correct
    estimators = tuple(dict.fromkeys(estimator for estimator, _ in right))
    methods = tuple(dict.fromkeys(method for _, method in right))
    cells = tuple(
        tuple(proportion(right[each, method]) if (each, method) in right else None for method in methods)
        for each in estimators
    )
    by_estimator = tuple(proportion(_both(c for (e, _), c in right.items() if e == each)) for each in estimators)
    by_method = tuple(proportion(_both(c for (_, m), c in right.items() if m == each)) for each in methods)
    samples = min(len(row.predictions) for row in rows)
    return Matrix(methods, estimators, cells, by_estimator, by_method, proportion(_both(right.values())), samples)


def _both(every: Iterable[Sequence[bool]]) -> list[bool]:
    """Which images all of them leave right."""
    return [all(image) for image in zip(*every, strict=False)]
