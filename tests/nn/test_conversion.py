"""A spiking network converted from one with rectifiers comes to compute what that computes."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import hosnn
from hosnn.errors import ConfigError
from hosnn.nn import conversion
from hosnn.nn.conversion import activation_percentiles, ann_to_snn
from hosnn.nn.convnet import ConvNet, Twin
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import neurons
from hosnn.nn.normalisation import Norm
from hosnn.spiking.state import Reset

PLAIN = ConvNet("4C3-P2-8C3-P2-12-5", image=(2, 8, 8), mean=(0.5, 0.4), std=(0.3, 0.2), dropout=0.1, pool_gain=0.25)
KINDS = {
    "normalised": PLAIN,
    "analogue encoder": replace(PLAIN, analogue_layers=1, dead_zone=0.05),
    "biases": replace(PLAIN, norm=Norm.NONE, bias=True),
    "dense without normalisation": replace(PLAIN, norm_dense=False),
    "per step": replace(PLAIN, norm=Norm.PER_STEP),
    "learned readout": replace(PLAIN, learned_readout=True),
    "sum pooling, no padding": replace(PLAIN, structure="4C3-P2-6-5", pool_gain=1.1, padded=False),
}
X = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def twin(blueprint: ConvNet) -> SpikingNetwork:
    """A twin whose statistics and gains are those of no fresh network."""
    torch.manual_seed(0)
    network = replace(blueprint, twin=Twin.RELU).build()
    network(X)  # running statistics
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_come_closer_to_the_anns_with_more_steps(kind: str) -> None:
    ann = twin(KINDS[kind])
    with torch.no_grad():
        expected = ann(X)
        gaps = [float((ann_to_snn(ann, [X], steps, 100.0)(X) - expected).abs().mean()) for steps in (4, 32, 256)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.02 * float(expected.std())


def test_the_converted_network_integrates_and_fires_and_leaves_the_ann_as_it_was() -> None:
    ann = twin(PLAIN)
    before = {name: tensor.clone() for name, tensor in ann.state_dict().items()}
    converted = ann_to_snn(ann, iter([X[:20], X[20:]]), steps=6)
    assert converted.steps == 6
    assert not converted.training
    assert {layer.dynamics.membrane_decay for layer in neurons(converted).values()} == {1.0}
    assert {layer.dynamics.reset for layer in neurons(converted).values()} == {Reset.SOFT}
    assert len(neurons(converted)) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in ann.state_dict().items())


def test_it_is_saved_calibrated_and_trained_like_any_other(tmp_path) -> None:
    converted = ann_to_snn(twin(KINDS["analogue encoder"]), [X], steps=3)
    hosnn.save(converted, tmp_path / "converted")
    loaded = hosnn.load(tmp_path / "converted")
    with torch.no_grad():
        assert torch.equal(loaded(X), converted(X))
        adaptive = hosnn.homeostatic(loaded, hosnn.calibrate(loaded, [X]), 0.0)
        assert torch.equal(adaptive(X), converted(X))
    loss = adaptive.train()(X).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in adaptive.parameters())


def test_percentiles_are_those_of_all_batches_together() -> None:
    ann = twin(PLAIN)
    together = activation_percentiles(ann, [X], 99.0)
    assert activation_percentiles(ann, [X[:10], X[10:]], 99.0) == pytest.approx(together)
    outputs: list[torch.Tensor] = []
    ann.get_submodule("body.neurons1").register_forward_hook(lambda _, given, output: outputs.append(output.detach()))
    ann(X)
    values = outputs[0].flatten().sort().values
    assert together["neurons1"] == pytest.approx(float(values[-(len(values) // 100) - 1]), rel=1e-3)


def test_percentiles_are_of_all_places_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stride they were those of few columns, the padded border among them."""
    ann, x = twin(PLAIN), X.clone()
    x[..., ::2] = 0.5
    whole = activation_percentiles(ann, [x], 90.0)
    monkeypatch.setattr(conversion, "SAMPLED", len(x) * 4 * 8 * 8 // 8)
    assert activation_percentiles(ann, [x], 90.0)["neurons1"] == pytest.approx(whole["neurons1"], rel=0.06)


@pytest.mark.parametrize(
    ("blueprint", "batches", "steps", "percentile", "message"),
    [
        (PLAIN, [X], 4, 99.9, "twin=Twin.RELU"),
        (replace(PLAIN, twin=Twin.RELU), [], 4, 99.9, "no images"),
        (replace(PLAIN, twin=Twin.RELU), [X], 0, 99.9, "at least 1 step"),
        (replace(PLAIN, twin=Twin.RELU), [X], 4, 0.0, "percentile"),
    ],
)
def test_what_cannot_be_converted_is_named(blueprint, batches, steps, percentile, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ann_to_snn(blueprint.build(), batches, steps, percentile)


def test_images_go_to_the_device_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches come from the CPU, where the network may be on a GPU."""
    asked: list[Any] = []

    def device(*network_and_images: Any) -> torch.device:
        asked.append(network_and_images)
        return torch.device("meta")

    monkeypatch.setattr(conversion, "device_of", device)
    with pytest.raises(Exception, match="meta"):
        activation_percentiles(twin(PLAIN), [X], 99.0)
    assert len(asked) == 1
