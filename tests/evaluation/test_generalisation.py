"""Accuracy under corruptions and at other time steps: shares that can be counted by hand, the model left as it was."""

import json

import pytest
import torch
from torch import Tensor

from hosnn.data.corruptions import Corruption, corrupt
from hosnn.data.split import Split
from hosnn.errors import ConfigError
from hosnn.evaluation.ablations import ablation_protocol
from hosnn.evaluation.generalisation import corruption_accuracy, steps_at_test_time
from hosnn.nn.convnet import ConvNet
from hosnn.nn.neurons import Extrapolation, hidden_neurons
from hosnn.nn.normalisation import Norm
from hosnn.robustness.threats import Threat
from hosnn.signature import fingerprint
from hosnn.signature.ablations import frozen_at_mean_threshold
from tests.nn.test_networks import images, lif_network, talif_network


def split(count: int = 60) -> Split:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(40, 200, (count, 1, 28, 28), generator=rng, dtype=torch.uint8)
    return Split(pixels, torch.arange(count) % 4, torch.arange(count) * 3 + 7)


def bright(x: Tensor) -> Tensor:
    """Class 1 for images brighter on average than 0.6, else class 0."""
    mean = x.mean((1, 2, 3))
    return torch.stack([torch.full_like(mean, 0.6), mean], 1)


def test_each_accuracy_is_that_of_the_corrupted_images() -> None:
    data = split()
    kinds = (Corruption.BRIGHTNESS, Corruption.GAUSSIAN_NOISE)
    found = corruption_accuracy(bright, data, seed=3, corruptions=kinds, severities=(2, 5))
    x, y = data.batch(torch.arange(len(data)))
    for row, kind in zip(found.accuracies, kinds, strict=True):
        for accuracy, severity in zip(row, (2, 5), strict=True):
            guesses = bright(corrupt(x, kind, severity, 3, data.index)).argmax(1)
            assert accuracy == pytest.approx((guesses == y).double().mean().item())
    assert found.clean == pytest.approx(0.25) and found.samples == 60
    assert found.mean_of("brightness") == pytest.approx(sum(found.accuracies[0]) / 2)
    assert found.mean == pytest.approx((found.mean_of("brightness") + found.mean_of("gaussian noise")) / 2)
    assert found.accuracies[0][1] == 0.25 and bright(corrupt(x, kinds[0], 5, 3, data.index)).argmax(1).all()


def test_a_part_of_the_split_is_its_fixed_choice() -> None:
    data = split()
    kinds = (Corruption.GAUSSIAN_NOISE,)
    network = lif_network()
    assert corruption_accuracy(network, data, samples=20, corruptions=kinds) == corruption_accuracy(
        network, data.subset(20), corruptions=kinds
    )


@pytest.mark.parametrize("adapting", [False, True], ids=["LIF", "TA-LIF"])
def test_its_own_number_of_steps_gives_its_own_accuracy(adapting: bool) -> None:
    network, data = talif_network() if adapting else lif_network(), split()
    before, beyond = fingerprint(network), [getattr(layer, "beyond", None) for layer in network.modules()]
    found = steps_at_test_time(network.train(), data, (2, 5, 7))
    x, y = data.batch(torch.arange(len(data)))
    assert found.accuracies[1] == pytest.approx((network.eval()(x).argmax(1) == y).double().mean().item())
    assert found.own == 5 and found.beyond == ("hold-last" if adapting else "")
    assert network.steps == 5 and fingerprint(network) == before
    assert [getattr(layer, "beyond", None) for layer in network.modules()] == beyond


def test_more_steps_are_really_run() -> None:
    network, data = lif_network(), split()
    x, y = data.batch(torch.arange(len(data)))
    guesses = network(x[:, None].expand(-1, 5, -1, -1, -1)).argmax(1)
    network.coding.steps = 9
    expected = (network(x).argmax(1) == y).double().mean().item()
    assert (network(x).argmax(1) != guesses).any(), "the number of steps changes nothing here"
    network.coding.steps = 5
    assert steps_at_test_time(network, data, (9,)).accuracies[0] == pytest.approx(expected)


@pytest.mark.parametrize("beyond", [Extrapolation.HOLD_LAST, Extrapolation.REPEAT])
def test_which_signature_was_held_against_later_steps_is_said(beyond: Extrapolation) -> None:
    network, data = talif_network(), split(12)
    assert steps_at_test_time(network, data, (8,), beyond=beyond).beyond == beyond.value
    frozen = frozen_at_mean_threshold(network, [images()])
    assert steps_at_test_time(frozen, data, (8,), beyond=beyond).beyond == beyond.value
    for layer in hidden_neurons(network).values():
        layer.beyond = Extrapolation.REPEAT  # type: ignore[assignment]
    assert steps_at_test_time(network, data, (8,), beyond=beyond).beyond == "repeat", "the network's own word counts"


@pytest.mark.parametrize(("norm", "used"), [(Norm.PER_STEP, "repeat"), (Norm.SHARED, "")])
def test_statistics_per_step_go_on_as_said(norm: Norm, used: str) -> None:
    shape = (1, 28, 28)
    network = ConvNet("4C3-P2-8-10", image=shape, mean=(0.5,), std=(0.25,), steps=2, norm=norm).build().eval()
    found = steps_at_test_time(network, split(12), (1, 2, 4), beyond=Extrapolation.REPEAT)
    assert found.beyond == used and len(found.accuracies) == 3


def test_both_values_can_be_written_down() -> None:
    network, data = lif_network(), split(8)
    content = corruption_accuracy(network, data, corruptions=(Corruption.JPEG,), severities=(1,)).to_json()
    assert json.loads(json.dumps(content))["corruptions"] == ["jpeg"]
    content = steps_at_test_time(network, data, (1, 2)).to_json()
    assert json.loads(json.dumps(content))["steps"] == [1, 2] and len(content["intervals"][0]) == 2


def test_what_makes_no_sense_is_refused() -> None:
    network, data = lif_network(), split(8)
    with pytest.raises(ConfigError, match="number of time steps can be changed"):
        steps_at_test_time(bright, data)  # type: ignore[arg-type]
    for steps in ((), (0, 1)):
        with pytest.raises(ConfigError, match="at least 1"):
            steps_at_test_time(network, data, steps)
    with pytest.raises(ConfigError, match="no images"):
        corruption_accuracy(network, data, samples=0)
    with pytest.raises(ConfigError, match="no corruption"):
        corruption_accuracy(network, data, corruptions=())
    with pytest.raises(ConfigError, match="there are jpeg"):
        corruption_accuracy(network, data, corruptions=(Corruption.JPEG,), severities=(1,)).mean_of("fog")


@pytest.mark.parametrize("threat", ["linf:8/255", "l2:1/2", "l1:3"])
def test_controls_attack_twice_under_every_threat(threat: str) -> None:
    assert len(ablation_protocol(Threat.parse(threat)).attacks) == 2
