from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hosnn.data import fashion_mnist_sample
from hosnn.errors import ConfigError
from hosnn.evaluation.examples import attacked_examples, neuron_traces
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import TALIF
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import fgsm
from hosnn.robustness.threats import Threat
from hosnn.signature import calibrate, homeostatic
from hosnn.signature.calibration import trajectories

ATTACK = fgsm(Threat(Linf(8 / 255)))
Networks = dict[str, SpikingNetwork]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return fashion_mnist_sample().test.batch(torch.arange(3))[0]


@pytest.fixture
def networks() -> Iterator[Networks]:
    torch.manual_seed(0)
    plain = LeNet(channels=(3, 4), hidden=16).build()
    x, _ = fashion_mnist_sample().train.batch(torch.arange(20))
    yield {"TA-LIF": homeostatic(plain, calibrate(plain, [x]), 0.1), "LIF": plain}


def attacked(networks: Networks, x: Tensor) -> dict[str, Tensor]:
    y, rng = torch.zeros(len(x), dtype=torch.int64), SampleRandom(0, torch.arange(len(x)))
    return {name: ATTACK(network.eval(), x, y, rng) for name, network in networks.items()}


def test_the_same_neuron_is_watched_in_every_network_over_all_steps(networks: Networks, images: Tensor) -> None:
    stories = neuron_traces(networks, images, attacked(networks, images))
    assert [story.network for story in stories] == ["TA-LIF", "LIF"]
    assert len({(story.layer, story.neuron) for story in stories}) == 1
    for story in stories:
        values = vars(story) | {"signature": story.signature or story.clean_membrane}
        assert {len(values[name]) for name in values if name.startswith(("clean", "attacked", "sig"))} == {5}
        assert set(story.clean_spikes) | set(story.attacked_spikes) <= {0, 1}
        fired = [u > theta for u, theta in zip(story.clean_membrane, story.clean_threshold, strict=True)]
        assert fired == [bool(spike) for spike in story.clean_spikes]


def test_the_plain_network_chooses_the_spiking_neuron_that_is_moved_most(networks: Networks, images: Tensor) -> None:
    x_adv = attacked(networks, images)
    plain = networks["LIF"]
    story = neuron_traces(networks, images, x_adv)[1]
    assert sum(story.clean_spikes) > 0 and story.signature is None
    with torch.no_grad():
        clean, moved = (trajectories(plain, each[:1])[story.layer] for each in (images, x_adv["LIF"]))
    difference = (moved.membrane - clean.membrane)[:, 0].abs().mean(0)
    spiking = clean.spikes[:, 0].sum(0) > 0
    assert story.deviation == pytest.approx(float(difference[spiking].max()), rel=1e-5)


def test_the_signature_and_the_threshold_are_the_layers(networks: Networks, images: Tensor) -> None:
    story = neuron_traces(networks, images, attacked(networks, images), layer="body.neurons3")[0]
    layer = networks["TA-LIF"].get_submodule("body.neurons3")
    assert isinstance(layer, TALIF) and story.signature is not None
    assert story.signature == pytest.approx(layer.signature[:, story.neuron[0]].tolist())
    threshold = 1.0
    for u, target, theta in zip(story.clean_membrane, story.signature, story.clean_threshold, strict=True):
        threshold += 0.1 * (u - target)
        assert theta == pytest.approx(threshold, rel=1e-4)


def test_frames_are_taken_too(networks: Networks, images: Tensor) -> None:
    frames = images[:, None].expand(-1, 5, -1, -1, -1)
    stories = neuron_traces(networks, images, dict.fromkeys(networks, frames))
    assert [story.deviation for story in stories] == pytest.approx([0.0, 0.0], abs=1e-5)


def test_stories_leave_the_networks_in_their_mode(networks: Networks, images: Tensor) -> None:
    x_adv = attacked(networks, images)
    networks["LIF"].train()
    neuron_traces(networks, images, x_adv)
    assert networks["LIF"].training and not networks["TA-LIF"].training


def test_what_cannot_be_compared_is_refused(networks: Networks, images: Tensor) -> None:
    x_adv = attacked(networks, images)
    with pytest.raises(ConfigError, match=r"no attacked image for \['LIF'\]"):
        neuron_traces(networks, images, {"TA-LIF": x_adv["TA-LIF"]})
    with pytest.raises(ConfigError, match=r"no hidden spiking layer 'nowhere'; it has body.neurons1"):
        neuron_traces(networks, images, x_adv, layer="nowhere")
    other = LeNet(channels=(2, 4), hidden=16).build()
    with pytest.raises(ConfigError, match="differs in size"):
        neuron_traces(networks | {"LIF": other}, images, x_adv)


def test_examples_are_right_when_clean_varied_and_fixed(networks: Networks) -> None:
    data, network = fashion_mnist_sample(), networks["LIF"]
    found = attacked_examples(network, data.test, ATTACK, 3, network="LIF", classes=data.classes)
    assert found == attacked_examples(network, data.test, ATTACK, 3, network="LIF", classes=data.classes)
    assert 0 < len(found) <= 3
    for example in found:
        row = int((data.test.index == example.index).nonzero()[0, 0])
        x, y = data.test.batch(torch.tensor([row]))
        assert torch.equal(torch.tensor(example.image), x[0])
        assert example.label == example.clean_prediction == data.classes[int(y)]
        assert int(network.eval()(x).argmax()) == int(y)
        assert (torch.tensor(example.adversarial) - x[0]).abs().max() <= 8 / 255 + 1e-6
        said = int(network(torch.tensor(example.adversarial)[None]).argmax())
        assert example.adversarial_prediction == data.classes[said]


def test_a_network_that_knows_nothing_has_no_examples() -> None:
    split = fashion_mnist_sample().test
    split = split.subset((split.labels == 3).nonzero()[:, 0])

    class Wrong(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(10)[0].expand(len(x), 10)

    assert attacked_examples(Wrong(), split, ATTACK, 3) == ()
