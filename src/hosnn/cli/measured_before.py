"""A table that is measured in parts: which networks now, and which are in its folder from before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hosnn.cli.reproduction_pipeline import CONVERTED
from hosnn.data import Dataset
from hosnn.errors import ConfigError, nearest
from hosnn.evaluation.store import check_belongs, is_of, keep
from hosnn.recipes.reproductions import PlannedEvaluation, Reproduction
from hosnn.recipes.variants import with_seed
from hosnn.results.reproduction import Cell, ReproductionResult
from hosnn.training.experiment import Experiment


def chosen(reproduction: Reproduction, only: Sequence[str]) -> tuple[Callable[[], Experiment], ...]:
    """The recipes of a table's networks called `only`, all if it is empty.  Raises ConfigError for other names."""
    if not only:
        return reproduction.grid
    named = {network_name(recipe): recipe for recipe in reproduction.grid}
    for name in only:
        if name not in named:
            raise ConfigError(
                f"--only got {name!r}; the networks of this table are {', '.join(named)}; did you mean "
                f"{nearest(name, tuple(named))!r}?"
            )
    return tuple(recipe for recipe in reproduction.grid if network_name(recipe) in only)


def network_name(recipe: Callable[[], Experiment]) -> str:
    """A network's name among those of its table, such as homeostatic-fgsm."""
    return str(getattr(recipe, "__name__", recipe)).replace("_", "-")


def measured_before(path: Path, reproduction: Reproduction, data: Dataset, precision: str) -> ReproductionResult | None:
    """The table in `path`; None if there is none.

    precision  of the trainings now
    Raises ConfigError if it holds a network that another recipe trained, or in another precision, or that was evaluated
    in another way than the table says today or on other data, and if the file cannot be read or was changed.
    """
    if not path.exists():
        return None
    result = ReproductionResult.load(path)
    places = _places(result.cells, reproduction)

    def plans_of(cell: Cell) -> Iterator[tuple[PlannedEvaluation, ...]]:
        """The plans that a network may have been measured by: those of a command's first seed, or of a further one."""
        if reproduction.conversions is not None and CONVERTED in cell.experiment:
            yield reproduction.conversions.plans
            return
        yield reproduction.plans_for(True)
        yield reproduction.plans_for(False)

    def holds(cell: Cell, plans: tuple[PlannedEvaluation, ...]) -> bool:
        measured = [(cell.evaluations.get(plan.key), plan.resolved()) for plan in plans]
        return cell.identity in places and all(
            evaluation is not None and is_of(evaluation, protocol, data) for evaluation, protocol in measured
        )

    for cell in result.cells:
        plans = next((plans for plans in plans_of(cell) if holds(cell, plans)), None)
        if plans is None:
            raise ConfigError(
                f"{path} has {cell.experiment} of another recipe, other data or other attacks than --only would put "
                "beside it; choose another --out, or move the file away"
            )
        if cell.precision not in ("", precision):
            raise ConfigError(
                f"{path} has {cell.experiment}, trained with --precision {cell.precision}, and now the precision is "
                f"{precision}; give the same, choose another --out, or move the file away"
            )
        for plan in plans:
            check_belongs(cell.evaluations[plan.key], data, plan.resolved(), path)
    return result


def first_seed(before: ReproductionResult | None, otherwise: int) -> int:
    """The seed of a table whose networks are measured in full: its first."""
    return otherwise if before is None else before.cells[0].seed


def keep_others(path: Path, now: ReproductionResult) -> None:
    """Give a stored table another name if it holds something that the one about to take its place does not, and say so:
    a network, one trained in another precision or on other data, or an evaluation of one.

    Raises ConfigError if it cannot be renamed.
    """
    if not path.is_file():
        return

    def measured(cells: Sequence[Cell]) -> dict[tuple[str, ...], str]:
        return {
            (cell.experiment, cell.identity, cell.precision, key, evaluation.dataset_sha256): cell.experiment
            for cell in cells
            for key, evaluation in cell.evaluations.items()
        }

    known = measured(now.cells)
    try:
        before = measured(ReproductionResult.load(path).cells)
        lost = list(dict.fromkeys(name for key, name in before.items() if key not in known))
    except ConfigError:
        lost = ["a table that cannot be read"]
    if lost:
        keep(path, f"{', '.join(lost)}, not measured now or in another way")


def together(before: ReproductionResult, now: ReproductionResult, reproduction: Reproduction) -> ReproductionResult:
    """One table of both, seed by seed in the order of the table's recipes; what both measured as it is now.

    A start that both trained is counted once, as it is now.  Converted networks of a twin whose weights are no longer
    those of the table are left out.
    """
    known = {cell.experiment for cell in now.cells}
    gone = _retrained(before, now)
    kept = (cell for cell in before.cells if cell.experiment not in known and _twin(cell) not in gone)
    cells = (*kept, *now.cells)
    seeds = list(dict.fromkeys(cell.seed for cell in (*before.cells, *now.cells)))
    places = _places(cells, reproduction)

    def place(cell: Cell) -> tuple[int, bool, int]:
        return seeds.index(cell.seed), CONVERTED in cell.experiment, places[cell.identity]

    starts = dict(before.starts) | dict(now.starts)
    unnamed = max(0.0, before.start_seconds - sum(before.starts.values()))
    return replace(
        now,
        cells=tuple(sorted(cells, key=place)),
        experiments=dict(before.experiments) | dict(now.experiments),
        start_seconds=unnamed + sum(starts.values()),
        starts=starts,
    )


def _twin(cell: Cell) -> str | None:
    """The experiment of the twin that a network was converted from; None for others."""
    return cell.experiment.partition(CONVERTED)[0] if CONVERTED in cell.experiment else None


def _retrained(before: ReproductionResult, now: ReproductionResult) -> set[str]:
    """Experiments whose networks have other weights now than in the table before."""

    def weights(result: ReproductionResult) -> set[tuple[str, str]]:
        return {(cell.experiment, it.model_sha256) for cell in result.cells for it in cell.evaluations.values()}

    of_before = weights(before)
    known = {experiment for experiment, _ in of_before}
    return {it[0] for it in weights(now) if it[0] in known and it not in of_before}


def _places(cells: Sequence[Cell], reproduction: Reproduction) -> dict[str, int]:
    """The place in the table of each experiment, by identity, for the seeds of these cells."""
    recipes = [*reproduction.grid, *([reproduction.conversions.recipe] if reproduction.conversions else [])]
    places: dict[str, int] = {}
    for seed in {cell.seed for cell in cells}:
        for place, recipe in enumerate(recipes):
            places.setdefault(with_seed(recipe(), seed).identity, place)
    return places
