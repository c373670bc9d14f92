"""A table that is measured in parts: what is put together, and what must not be lost."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hosnn.cli import reproduction_pipeline
from hosnn.cli.measured_before import keep_others, together
from hosnn.cli.reproduction_pipeline import Pipeline
from hosnn.errors import SetAsideWarning
from hosnn.recipes.reproductions import Conversions
from hosnn.recipes.variants import with_seed
from hosnn.results.reproduction import Cell, ReproductionResult
from tests.evaluation.synthetic import comparison
from tests.reliability.commands import TINY_DEMO

TWIN = TINY_DEMO.grid[0]
WITH_CONVERSIONS = replace(TINY_DEMO, grid=TINY_DEMO.grid[1:], conversions=Conversions(TWIN, (2,), ()))


def table(*cells: Cell, **fields: Any) -> ReproductionResult:
    return replace(comparison(), cells=cells, **fields)


def cell(place: int, seed: int = 0, **fields: Any) -> Cell:
    """The cell of a recipe of the demonstration."""
    experiment = with_seed(TINY_DEMO.grid[place](), seed)
    known = {"experiment": experiment.name, "identity": experiment.identity, "seed": seed}
    return replace(comparison().cells[place], **{**known, **fields})


def weights(it: Cell, sha256: str) -> Cell:
    changed = {key: replace(found, model_sha256=sha256) for key, found in it.evaluations.items()}
    return replace(it, evaluations=changed)


@pytest.mark.parametrize(
    "before",
    [
        lambda it: replace(it, experiment="another"),
        lambda it: replace(it, identity="ab" * 32),
        lambda it: replace(it, precision="64-true"),
        lambda it: replace(it, evaluations={**it.evaluations, "full": it.evaluations["paper"]}),
        lambda it: replace(
            it, evaluations={key: replace(e, dataset_sha256="ab" * 32) for key, e in it.evaluations.items()}
        ),
    ],
)
def test_what_only_the_stored_table_holds_is_kept_beside_the_new_one(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReproductionResult, "check", lambda *_: None)  # "full" is only a name here
    path, now = tmp_path / "comparison.json", comparison()
    replace(now, cells=(before(now.cells[0]), *now.cells[1:])).save(path)
    with pytest.warns(SetAsideWarning, match="it is kept in"):
        keep_others(path, now)
    assert not path.exists() and len(list(tmp_path.glob("comparison.kept-*.json"))) == 1


def test_a_table_of_the_same_networks_is_replaced(tmp_path: Path) -> None:
    path, now = tmp_path / "comparison.json", comparison()
    now.save(path)
    keep_others(path, replace(now, cells=tuple(weights(it, "cd" * 32) for it in now.cells)))
    assert path.exists() and not list(tmp_path.glob("comparison.kept-*.json"))


def test_starts_of_a_table_that_does_not_name_them_are_still_counted() -> None:
    before = table(cell(0), start_seconds=1000.0)
    one = together(before, table(cell(0, 3), start_seconds=400.0, starts={"start-3": 400.0}), TINY_DEMO)
    assert one.start_seconds == 1400
    two = together(one, table(cell(0, 4), start_seconds=410.0, starts={"start-4": 410.0}), TINY_DEMO)
    assert two.start_seconds == 1810 and set(two.starts) == {"start-3", "start-4"}
    same = together(two, table(cell(1, 4), start_seconds=420.0, starts={"start-4": 420.0}), TINY_DEMO)
    assert same.start_seconds == 1820


@pytest.mark.parametrize(("sha256", "stays"), [("aa" * 32, True), ("bb" * 32, False)])
def test_converted_networks_stay_with_the_weights_they_were_made_from(sha256: str, stays: bool) -> None:
    twin = weights(cell(0), "aa" * 32)
    converted = weights(replace(twin, experiment=f"{twin.experiment}-converted-2"), "cc" * 32)
    result = together(table(cell(1), twin, converted), table(weights(twin, sha256)), WITH_CONVERSIONS)
    assert (converted in result.cells) == stays and len(result.cells) == (3 if stays else 2)


def test_epochs_are_those_trained_not_those_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = TINY_DEMO.grid[0]()
    start = experiment.start
    assert start is not None
    long = replace(experiment, optim=replace(experiment.optim, epochs=6))
    images = 10 * experiment.optim.batch_size
    data: Any = SimpleNamespace(train=range(images))
    monkeypatch.setattr(reproduction_pipeline, "limited", lambda data, _: data)
    trained = {long.name: 20, start.name: start.optim.steps(images)}
    monkeypatch.setattr(reproduction_pipeline, "run", lambda it, *_: SimpleNamespace(steps=trained[it.name]))
    pipeline: Any = SimpleNamespace(data=data, runs=Path(), fabric=None)
    pipeline._epochs = lambda it: Pipeline._epochs(pipeline, it)
    assert long.optim.steps(images) == 60, "of which a probe ended training after 20"
    assert pipeline._epochs(long) == 2 + start.optim.epochs
