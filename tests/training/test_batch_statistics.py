"""BatchNorm statistics follow the images a recipe trains on, once per step, and no others; networks with them train."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import TALIF, neurons
from hosnn.nn.normalisation import Norm
from hosnn.nn.resnet import ResNet
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import Threat
from hosnn.signature import calibrate, homeostatic
from hosnn.training.experiment import Experiment, Homeostasis, Optimisation
from hosnn.training.models import load, save
from hosnn.training.objectives import Adversarial, Clean, CrossEntropy
from hosnn.training.pipeline import run
from tests.training.toy import StopAfter, same_bits

GREY: dict[str, Any] = {"image": (1, 28, 28), "mean": (0.5,), "std": (0.25,), "steps": 3}
CONVNET = ConvNet("4C3-P2-4C3-P2-8-4", spiking_output=False, **GREY)
RESNET = ResNet(blocks=(1, 1), width=4, classes=4, **GREY)
THREAT = Threat(Linf(0.05))
ATTACK = PGD(THREAT, steps=2, step_size=0.5, keep_best=False)

BLUEPRINTS = pytest.mark.parametrize(
    "blueprint",
    [replace(CONVNET, norm=norm) for norm in Norm] + [RESNET, replace(RESNET, norm=Norm.PER_STEP)],
    ids=[*(f"convnet, {norm.value}" for norm in Norm), "resnet", "resnet, per-step"],
)


def fresh(blueprint: Any) -> SpikingNetwork:
    torch.manual_seed(0)
    return blueprint.build()  # type: ignore[no-any-return]


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.named_buffers()}


def crafted(network: SpikingNetwork, craft_in: Any, data: Dataset) -> Tensor:
    x, y = data.train.batch(torch.arange(8))
    objective = Adversarial(ATTACK, CrossEntropy(), craft_in)
    return objective.perturbed(network, x, y, SampleRandom(0, torch.arange(8)))


def moved(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not torch.equal(tensor, before[name]) for name, tensor in network.named_buffers())


@pytest.mark.parametrize("norm", [Norm.SHARED, Norm.PER_STEP], ids=lambda norm: norm.value)
@pytest.mark.parametrize(("craft_in", "moves"), [("eval", False), ("train", False), ("train-moving", True)])
def test_crafting_moves_no_statistics_unless_the_recipe_says_so(
    norm: Norm, craft_in: str, moves: bool, data: Dataset
) -> None:
    network = fresh(replace(CONVNET, norm=norm)).train()
    before = buffers(network)
    crafted(network, craft_in, data)
    assert moved(network, before) == moves
    assert all(module.training for module in network.modules())


def test_crafting_in_train_mode_sees_the_statistics_of_the_batch(data: Dataset) -> None:
    network = fresh(replace(CONVNET, dropout=0.0)).train()
    assert torch.equal(crafted(network, "train", data), crafted(network, "train-moving", data))
    assert not torch.equal(crafted(network, "train", data), crafted(network, "eval", data))


def test_a_layer_frozen_in_eval_mode_stays_frozen_while_and_after_crafting(data: Dataset) -> None:
    network = fresh(CONVNET).train()
    network.body.get_submodule("norm1").eval()
    before = buffers(network)
    for craft_in in ("eval", "train", "train-moving"):
        crafted(network, craft_in, data)
        assert [name for name, module in network.named_modules() if not module.training] == [
            "body.norm1",
            "body.norm1.each",
            "body.norm1.each.0",
        ]
    assert torch.equal(network.get_buffer("body.norm1.each.0.running_mean"), before["body.norm1.each.0.running_mean"])


def experiment(blueprint: Any, craft_in: Any = "train") -> Experiment:
    optim = Optimisation(epochs=2, batch_size=16, lr=5e-3)
    clean = Experiment(name="clean", data="toy", network=blueprint, objective=Clean(CrossEntropy()), optim=optim)
    robust = Adversarial(fgsm(THREAT), CrossEntropy(), craft_in)
    return replace(clean, name="robust", start=clean, homeostasis=Homeostasis(), objective=robust)


@pytest.mark.parametrize(("craft_in", "each"), [("eval", 1), ("train", 1), ("train-moving", 2)])
def test_statistics_move_once_per_step_of_training(
    craft_in: str, each: int, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    """FGSM looks once: 2 epochs of 3 steps for the clean start, as many for the rest; validation moves nothing."""
    run(experiment(CONVNET, craft_in), data, tmp_path, fabric)
    counts = {name: int(tensor) for name, tensor in load(tmp_path / "robust", "last").named_buffers() if "num_" in name}
    best = int(load(tmp_path / "clean", "best").get_buffer("body.norm1.each.0.num_batches_tracked"))
    assert set(counts.values()) == {best + 6 * each} and len(counts) == 3


@BLUEPRINTS
def test_networks_train_homeostatic_and_come_back_the_same(
    blueprint: Any, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    assert run(experiment(blueprint), data, tmp_path, fabric).finished
    network = load(tmp_path / "robust")
    assert sum(isinstance(layer, TALIF) for layer in neurons(network).values()) == len(neurons(network))
    assert network.blueprint == blueprint
    save(network, tmp_path / "copy")
    again, x = load(tmp_path / "copy"), data.test.batch(torch.arange(8))[0]
    assert again.blueprint == blueprint
    assert torch.equal(again(x), network(x))
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_network_that_no_checkpoint_could_build_again_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"could not build again; expected a blueprint: LeNet, ConvNet, ResNet"):
        replace(experiment(CONVNET), network=fresh(CONVNET))  # type: ignore[arg-type]


def test_a_run_stopped_and_resumed_keeps_its_statistics_to_the_bit(
    tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(experiment(CONVNET), data, whole, fabric)
    while not run(experiment(CONVNET), data, parts, fabric, StopAfter(2), resume=True).finished:
        pass
    for name in ("clean", "robust"):
        same_bits(whole / name, parts / name)


def test_a_calibrated_network_keeps_its_statistics(data: Dataset) -> None:
    network = fresh(CONVNET).train()
    before = buffers(network)
    x = data.train.batch(torch.arange(8))[0]
    twin = homeostatic(network, calibrate(network, [x]))
    assert not moved(network, before)
    assert twin.training and network.training
