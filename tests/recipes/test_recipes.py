"""Recipes give experiments that differ only in what they are meant to compare."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.lenet import LeNet
from hosnn.recipes import demo, fashion_mnist
from hosnn.recipes.reproductions import REPRODUCTIONS
from hosnn.recipes.resolve import built_in, override, resolve
from hosnn.recipes.variants import with_seed
from hosnn.training.experiment import Experiment

TWO_BY_TWO = [name for name in REPRODUCTIONS if "-robust" not in name]
ROBUST = [name for name in REPRODUCTIONS if "-robust" in name]


@pytest.mark.parametrize("reproduction", ROBUST)
def test_robust_cells_differ_in_the_neuron_only(reproduction):
    lif, *homeostatic, twin = (recipe() for recipe in REPRODUCTIONS[reproduction].grid)
    same: dict[str, Any] = {"name": "same", "homeostasis": None}
    assert all(replace(lif, **same) == replace(cell, **same) for cell in homeostatic)
    assert all(cell.homeostasis is not None for cell in homeostatic)
    assert twin.objective == lif.objective
    assert isinstance(twin.network, ConvNet)
    assert replace(twin.network, twin=Twin.NONE) == lif.network
    assert twin.data == lif.data


@pytest.mark.parametrize("reproduction", TWO_BY_TWO)
def test_the_four_cells_differ_in_neuron_and_training_only(reproduction):
    grid = REPRODUCTIONS[reproduction].grid
    lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm = (recipe() for recipe in grid)
    same: dict[str, Any] = {"name": "same", "objective": lif_clean.objective, "homeostasis": None}
    assert len({replace(cell, **same) for cell in (lif_clean, lif_fgsm, homeostatic_clean, homeostatic_fgsm)}) == 1
    assert lif_clean.objective == homeostatic_clean.objective
    assert lif_fgsm.objective == homeostatic_fgsm.objective
    assert homeostatic_clean.homeostasis == homeostatic_fgsm.homeostasis


def test_all_cells_begin_with_one_clean_lif_start():
    for reproduction in map(REPRODUCTIONS.__getitem__, TWO_BY_TWO):
        starts = {recipe().start for recipe in reproduction.grid}
        assert len(starts) == 1
        (start,) = starts
        assert start is not None
        assert start.homeostasis is None
        assert start.objective == reproduction.grid[0]().objective


def test_every_listed_recipe_resolves_by_its_short_and_its_full_name():
    for name in built_in():
        assert resolve(name) == resolve(f"hosnn.recipes.{name}")


def test_a_recipe_is_any_function_that_returns_an_experiment(monkeypatch, tmp_path):
    (tmp_path / "own_recipes.py").write_text(
        "from hosnn.recipes import demo\ndef quick():\n    return demo.lif_clean()\ndef wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("own_recipes:quick") == demo.lif_clean()
    with pytest.raises(ConfigError, match="returned int"):
        resolve("own_recipes:wrong")


def test_recipes_in_the_current_folder_are_found_by_the_command_too(monkeypatch, tmp_path):
    """Its sys.path begins with the folder of the script, where `python -m hosnn` has the current one."""
    (tmp_path / "lying_here.py").write_text("from hosnn.recipes.demo import lif_clean\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(Path.cwd()))])
    assert resolve("lying_here:lif_clean") == demo.lif_clean()


def test_functions_that_tell_no_arguments_are_called_to_see():
    with pytest.raises(ConfigError, match="builtins:dict returned dict; a recipe is a function -> Experiment"):
        resolve("builtins:dict")


def test_overrides_are_typed_by_the_field():
    experiment = override(
        fashion_mnist.homeostatic_fgsm(),
        ["optim.lr=1/1000", "optim.epochs=3", "homeostasis.share=layer", "network.channels=4,5", "seed=7", "name=mine"],
    )
    assert experiment.optim.lr == 1e-3
    assert experiment.optim.epochs == 3
    assert experiment.homeostasis is not None
    assert experiment.homeostasis.share.value == "layer"
    assert isinstance(experiment.network, LeNet)
    assert experiment.network.channels == (4, 5)
    assert experiment.name == "mine"
    assert experiment.start is not None
    assert experiment.start.network == experiment.network
    assert experiment.start.seed == 7


def test_identity_follows_everything_that_decides_the_result():
    base = demo.homeostatic_fgsm()
    changed = [
        override(base, [setting])
        for setting in ("optim.lr=1e-4", "network.hidden=10", "start.optim.epochs=1", "objective.craft_in=train")
    ]
    assert len({experiment.identity for experiment in (base, *changed, with_seed(base, 1))}) == 6
    assert demo.homeostatic_fgsm().identity == base.identity


def test_a_start_of_another_network_is_refused():
    base = demo.lif_clean()
    assert isinstance(base.network, LeNet)
    with pytest.raises(ConfigError, match="another network or data set"):
        replace(base, network=replace(base.network, hidden=7))


def test_only_functions_that_make_experiments_are_listed() -> None:
    for recipe in built_in():
        assert isinstance(resolve(recipe), Experiment)
