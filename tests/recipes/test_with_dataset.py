"""A recipe on another data set: what is fitted to it, and what stays."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hosnn.cli.main import main
from hosnn.cluster.trials import trials
from hosnn.data import Dataset, Split
from hosnn.errors import ConfigError
from hosnn.recipes import cifar10_small, demo, fashion_mnist, nmnist
from hosnn.recipes.resolve import fitted_to, override
from hosnn.recipes.variants import fitted, with_dataset
from hosnn.training.experiment import Experiment
from hosnn.training.objectives import VanRossum


def dataset(name: str, shape: tuple[int, ...], classes: int, divisor: int = 255) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(divisor + 1, (4 * classes, *shape), generator=rng, dtype=torch.uint8)
    split = Split(images, torch.arange(4 * classes) % classes, torch.arange(4 * classes), divisor)
    return Dataset.from_own(
        name=name, classes=tuple(map(str, range(classes))), train=split, validation=split, test=split, source="a test"
    )


PICTURES = dataset("own:my-leaves", (3, 20, 24), 7)
FRAMES = dataset("nmnist-small:steps=4,bins=time,values=counts,maximum=8", (4, 2, 20, 24), 5, divisor=8)
RECIPES = [demo.lif_fgsm, demo.homeostatic_clean, fashion_mnist.homeostatic_fgsm, cifar10_small.homeostatic_fgsm]


def named(recipe: object) -> str:
    return f"{recipe.__module__.rpartition('.')[2]}:{recipe.__name__}"  # type: ignore[attr-defined]


def stages(experiment: Experiment) -> list[Experiment]:
    """The experiment and everything it starts from."""
    return [experiment, *(stages(experiment.start) if experiment.start else [])]


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
@pytest.mark.parametrize("data", [PICTURES, FRAMES], ids=["pictures", "frames"])
def test_the_network_is_fitted_to_images_and_classes(recipe, data: Dataset) -> None:
    mean, std = data.pixel_statistics()
    for stage in stages(with_dataset(recipe(), data)):
        network = stage.network.build()
        assert stage.data == data.name
        blueprint: Any = network.blueprint
        assert (blueprint.image, blueprint.mean, blueprint.std) == (data.image_shape, mean, std)
        x, _ = data.train.batch(torch.arange(2))
        assert network(x).shape == (2, data.num_classes)
        if data.steps is not None:
            assert network.steps == data.steps
            if isinstance(stage.objective.loss, VanRossum):
                assert stage.objective.loss.spikes == (0, 1, 1, 1)


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_all_else_stays(recipe) -> None:
    def settings(stage: Experiment) -> dict[str, object]:
        fitted_to_data = ("name", "data", "network", "start")
        return {field.name: getattr(stage, field.name) for field in fields(stage) if field.name not in fitted_to_data}

    before, after = stages(recipe()), stages(with_dataset(recipe(), PICTURES))
    assert [settings(stage) for stage in after] == [settings(stage) for stage in before]
    assert [stage.name for stage in after] == [f"{stage.name}-my-leaves" for stage in before]


def test_what_the_user_sets_holds_on_data_of_their_own() -> None:
    settings = ("network.mean=0.5,0.4,0.3", "optim.epochs=3", "name=mine", "objective.loss.spikes=1,1,1,1,1")
    experiment = fitted_to(PICTURES, override(cifar10_small.lif_clean(), settings), settings)
    assert [stage.network.mean for stage in stages(experiment)] == [(0.5, 0.4, 0.3)] * 2  # type: ignore[attr-defined]
    assert (experiment.name, experiment.optim.epochs) == ("mine-my-leaves", 3)
    (trial,) = trials(["cifar10_small:lif_clean"], settings[:2], (), (0,), PICTURES)
    assert trial.experiment.network == experiment.network
    assert experiment.network.image == PICTURES.image_shape


def test_names_of_runs_are_names_of_folders() -> None:
    name = with_dataset(demo.lif_clean(), FRAMES).name
    assert name == "demo-lif-clean-nmnist-small-steps-4-bins-time-values-counts-maximum-8"


def test_pixel_statistics_are_those_of_the_training_images() -> None:
    mean, std = PICTURES.pixel_statistics()
    x = PICTURES.train.images.double() / 255
    assert mean == tuple(round(value, 4) for value in x.mean((0, 2, 3)).tolist())
    assert std == tuple(round(value, 4) for value in x.std((0, 2, 3), unbiased=False).tolist())
    black = replace(PICTURES.train, images=PICTURES.train.images * 0)
    assert replace(PICTURES, train=black).pixel_statistics() == ((0.0,) * 3, (1.0,) * 3)
    frames = FRAMES.train.images.double() / 8
    assert FRAMES.pixel_statistics()[0] == tuple(round(value, 4) for value in frames.mean((0, 1, 3, 4)).tolist())


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="image"):
        fitted(demo.lif_clean().network, dataset("own:dots", (1, 4, 4), 3)).build()


@pytest.mark.parametrize("recipe", nmnist.GRID, ids=named)
def test_recipes_of_n_mnist_take_its_frames(recipe) -> None:
    for stage in stages(recipe()):
        network = stage.network.build()
        assert network.steps == nmnist.STEPS
        assert network(torch.rand(2, nmnist.STEPS, 2, 34, 34)).shape == (2, 10)


SHARED = Path(__file__).parents[3] / "shared" / "data" / "nmnist-small"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_recordings_train_and_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSNN_CACHE", str(tmp_path / "cache"))
    small = ("network.structure=2C5-P2-2C5-P2-8-10", "optim.epochs=1", "optim.batch_size=100")
    settings = [
        word for field in (*small, "start.optim.epochs=1", "start.optim.batch_size=100") for word in ("--set", field)
    ]
    data = ("--data-folder", str(SHARED))
    assert main(["train", "nmnist:lif_fgsm", *settings, *data]) == 0
    assert main(["evaluate", "runs/nmnist-lif-fgsm", "--samples", "20", *data]) in (0, 3, 4)
    assert "nmnist-small (unverified)" in Path("runs/nmnist-lif-fgsm/evaluations/smoke-n20.md").read_text()
