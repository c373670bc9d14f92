"""Attack against gradient estimator: accuracy under every pair, all on the same images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import proportion

OWN = "its own or none"
"""Heading for attacks that bring their own gradient estimator or use no gradient."""

LEAST_RANGE = 0.05  # of accuracy, for all shades: a matrix of nearly equal cells is shown in nearly equal shades


@dataclass(frozen=True, kw_only=True)
class AttackMatrix:
    """Accuracies on `samples` images, fractions in [0, 1]; None for a pair that was not run.

    cells         [estimator][method]
    by_estimator  share of images that are right after all methods with that estimator
    by_method     share of images that are right after that method with all estimators
    all           share of images that are right after every attack of the matrix
    """

    methods: tuple[str, ...]
    estimators: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    by_estimator: tuple[float, ...]
    by_method: tuple[float, ...]
    all: float
    samples: int

    def heat(self, share: float) -> float:
        """Shade of a cell of accuracy `share`: 0 for the highest accuracy of the matrix, 1 for the lowest."""
        accuracies = self._accuracies()
        low, high = min(accuracies), max(accuracies)
        return min(1.0, max(0.0, (high - share) / max(high - low, LEAST_RANGE)))

    @property
    def strongest(self) -> float:
        """The lowest accuracy of one pair."""
        return min(self._accuracies())

    def _accuracies(self) -> list[float]:
        return [cell for row in self.cells for cell in row if cell is not None]


def attack_matrix(evaluation: Evaluation) -> AttackMatrix | None:
    """The panel "matrix" of an evaluation; None if its protocol has none.

    An image counts for a whole row or column only if it is right after every attack in it, so these shares are at most
    the lowest of their cells.
    """
    rows = evaluation.panel("matrix")
    if not rows:
        return None
    right: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        pair = (row.estimator or OWN, row.method or row.attack)
        correct = evaluation.correct_after(row)
        right[pair] = _all_right((right[pair], correct)) if pair in right else correct
    estimators = tuple(dict.fromkeys(estimator for estimator, _ in right))
    methods = tuple(dict.fromkeys(method for _, method in right))
    return AttackMatrix(
        methods=methods,
        estimators=estimators,
        cells=tuple(
            tuple(proportion(right[name, method]) if (name, method) in right else None for method in methods)
            for name in estimators
        ),
        by_estimator=tuple(
            proportion(_all_right(correct for (estimator, _), correct in right.items() if estimator == name))
            for name in estimators
        ),
        by_method=tuple(
            proportion(_all_right(correct for (_, method), correct in right.items() if method == name))
            for name in methods
        ),
        all=proportion(_all_right(right.values())),
        samples=min(len(row.predictions) for row in rows),
    )


def _all_right(attacks: Iterable[Sequence[bool]]) -> list[bool]:
    """Per image, whether it is right after all of them."""
    return [all(image) for image in zip(*attacks, strict=False)]
