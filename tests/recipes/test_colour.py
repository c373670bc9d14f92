"""The recipes for CIFAR-10, CIFAR-100 and SVHN from files in their original formats to a result, with tiny networks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hosnn.cli.main import main
from hosnn.data.cifar_files import CIFAR10_PYTHON, CIFAR100_PYTHON
from hosnn.recipes import cifar10, cifar10_small, cifar100, svhn
from hosnn.recipes.reproductions import REPRODUCTIONS
from hosnn.recipes.resolve import override
from hosnn.results.reproduction import ReproductionResult
from hosnn.training.experiment import Experiment
from tests.data.colour_formats import stand_in_for_cifar, write_cifar, write_svhn
from tests.data.test_svhn_files import use as stand_in_for_svhn

FILES: dict[str, Callable[[Path], object]] = {
    "cifar10": lambda folder: write_cifar(folder, CIFAR10_PYTHON),
    "cifar100": lambda folder: write_cifar(folder, CIFAR100_PYTHON),
    "svhn": write_svhn,
}
TINY = ("network.structure=4C3-P2-4C3-P2-8-2", "optim.epochs=1", "optim.batch_size=8")
FIELDS = [*TINY, *(f"start.{field}" for field in TINY[1:])]
SETTINGS = [word for field in FIELDS for word in ("--set", field)]


@pytest.fixture(autouse=True)
def tiny_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in_for_cifar(monkeypatch)
    stand_in_for_svhn(monkeypatch)
    monkeypatch.chdir(tmp_path)


RECIPES = (
    *("cifar10:homeostatic_fgsm", "cifar10:lif_fgsm", "cifar10_small:homeostatic_fgsm"),
    *("cifar100:homeostatic_fgsm", "cifar100:homeostatic_fgsm_4", "cifar100:lif_clean"),
    *("svhn:homeostatic_fgsm", "svhn:homeostatic_clean"),
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_and_is_evaluated(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = recipe.partition(":")
    name = f"{module.replace('_', '-')}-{function.replace('_', '-')}"
    FILES[module.partition("_")[0]](tmp_path / "data")
    data = ("--data-folder", str(tmp_path / "data"))
    assert main(["train", recipe, *SETTINGS, *data]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"runs/{name}", "--protocol", "paper", "--samples", "4", "--json", *data]) in (0, 3, 4)
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 4 and found["dataset"] == module.partition("_")[0]


def test_a_whole_reproduction_runs_on_the_original_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hosnn reproduce svhn`, its network and epochs made tiny."""
    real = REPRODUCTIONS["svhn"]

    def small(recipe: Callable[[], Experiment]) -> Callable[[], Experiment]:
        return lambda: override(recipe(), FIELDS)

    grid = tuple(small(recipe) for recipe in real.grid)
    plans = tuple(replace(plan, samples=4, panel_samples=0) for plan in real.plans)
    monkeypatch.setitem(REPRODUCTIONS, "svhn", replace(real, grid=grid, plans=plans))
    write_svhn(tmp_path / "data")
    assert main(["reproduce", "svhn", "--data-folder", str(tmp_path / "data")]) == 0
    found = ReproductionResult.load(tmp_path / "runs" / "svhn" / "comparison.json")
    assert [(cell.neuron, cell.training) for cell in found.cells] == [
        *(("LIF", "clean"), ("LIF", "FGSM 2/255")),
        *(("TA-LIF", "clean"), ("TA-LIF", "FGSM 2/255")),
    ]
    assert [number.accuracy for number in found.published] == [0.44, 35.06]


def test_settings_are_those_of_the_authors_and_the_paper() -> None:
    for recipe in (cifar10, svhn, cifar100):
        hosnn = recipe.homeostatic_fgsm()
        assert (hosnn.optim.batch_size, hosnn.optim.clip, hosnn.optim.weight_decay) == (64, 1.0, 0.01)
        assert hosnn.homeostasis is not None and hosnn.network.steps == 5
    assert sum(p.numel() for p in cifar10_small.start().network.build().parameters()) <= 1_000_000
