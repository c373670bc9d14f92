"""An inspection of networks with known spikes has the exact counts."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import Tensor, nn
from torch.nn import functional

from hosnn.cli.main import main
from hosnn.errors import ConfigError
from hosnn.inspection.inspect import inspect
from hosnn.inspection.operations import synaptic_operations
from hosnn.inspection.recording import Offset, record
from hosnn.nn.body import Body
from hosnn.nn.encoder import AnalogueEncoder, DeadZone
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, SpikingNetwork, SumPool
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, neurons
from hosnn.nn.resnet import ResNet
from hosnn.report.inspection_markdown import inspections_markdown
from hosnn.report.inspection_tables import drift_sentences
from hosnn.results.inspection import Inspection
from hosnn.results.schema import INSPECTION_FILE, schema_of
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import PGD
from hosnn.signature import calibrate, homeostatic
from hosnn.signature.ablations import without_adaptation
from hosnn.spiking.state import Dynamics, Reset

STEPS = 4
PLAIN = Dynamics(tau_membrane=1, tau_synapse=1)
"""No memory: u[t] = I[t] and a[t] = s[t]."""


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight = nn.Parameter(torch.tensor(rows))
    return layer


def known(hidden: LIF | None = None) -> nn.Sequential:
    """3 hidden neurons, 2 outputs: one always fires, one where the second pixel is bright, one never."""
    first = linear([2.0, 0.0], [0.0, 2.0], [-1.0, -1.0])
    second = linear([1.0, 0.0, 1.0], [0.0, 1.0, 0.5])
    return nn.Sequential(
        Normalise((0.0,), (1.0,)),
        ConstantCoding(STEPS, tau_synapse=1),
        OverTime(nn.Flatten(), first),
        hidden or LIF(PLAIN),
        OverTime(second),
        MeanReadout(),
    ).eval()


X = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
Y = torch.tensor([0, 0])


def test_counts_of_a_network_with_known_spikes() -> None:
    result = inspect(known(), (X, Y))
    (condition,) = result.conditions
    (layer,) = condition.layers
    assert (result.images, result.steps, condition.name) == (2, STEPS, "clean")
    # image 1: neurons 0 and 1 fire at every step; image 2: neuron 0
    assert layer.rate == (2 + 1) / (3 * 2)
    assert layer.silent == layer.saturated == pytest.approx(1 / 3)
    assert layer.threshold == (1.0,) * STEPS
    energy = result.energy
    assert energy is not None
    # inputs: 2 and 1 nonzero pixels; each reaches 2 nonzero weights.  Spikes of neurons 0 and 1 reach 1 weight each.
    assert energy.neurobench == {
        "Effective_MACs": STEPS * (4 + 2) / 2,
        "Effective_ACs": STEPS * (2 + 1) / 2,
        "Dense": STEPS * (6 + 6),
        "ActivationSparsity": 0.5,
        "MembraneUpdates": 3,  # the first step's neurons; u = I and hard reset leave the same membranes afterwards
        "NeuronOperations": 12,
        "Footprint": 4 * (6 + 6) + 4 * 2,
    }
    assert energy.trace_filter.multiplies == 3 * STEPS and energy.trace_filter.adds == STEPS * 1.5
    assert energy.picojoule["synapses"] == pytest.approx(STEPS * (3 * 4.6 + 1.5 * 0.9))
    assert energy.picojoule["ann"] == pytest.approx(12 * 4.6)
    assert (energy.adaptation.multiplies, energy.signature_bytes) == (0, 0)
    assert math.isnan(energy.break_even_rate)


def darker(model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    """The second pixel goes out."""
    return x * torch.tensor([1.0, 0.0])


def test_operations_are_counted_on_disturbed_images_too() -> None:
    """Without the second pixel half the inputs of image 1 are left, and neuron 1 is silent."""
    energies = inspect(known(), (X, Y), {"darker": darker, "offset": Offset(0.0)}).energies()
    assert list(energies) == ["clean", "darker", "offset"]
    assert energies["offset"].neurobench == energies["clean"].neurobench
    counts = energies["darker"].neurobench
    assert (counts["Effective_MACs"], counts["Effective_ACs"]) == (STEPS * (2 + 2) / 2, STEPS * (1 + 1) / 2)
    assert counts["ActivationSparsity"] == 1 - 1 / 3
    assert counts["Dense"] == energies["clean"].neurobench["Dense"]
    assert energies["darker"].picojoule["synapses"] == pytest.approx(STEPS * (2 * 4.6 + 1 * 0.9))


def test_an_inspection_written_before_disturbed_images_were_counted_is_read() -> None:
    content = inspect(known(), (X, Y), {"darker": darker}).to_json()
    del content["disturbed_energy"]
    assert list(Inspection.from_json(content).energies()) == ["clean"]


def test_membrane_updates_are_changes_after_the_first_step() -> None:
    """A neuron that integrates 0.4 changes at every step, and one at 0 never."""
    model = nn.Sequential(ConstantCoding(3, 1), OverTime(nn.Flatten(), linear([0.4], [0.0])), LIF(), MeanReadout())
    energy = inspect(model.eval(), (torch.ones(1, 1, 1, 1), torch.tensor([0]))).energy
    assert energy is not None
    assert energy.neurobench["MembraneUpdates"] == 2 + 1 + 1


@pytest.mark.parametrize(
    ("pool", "reached"),
    [(SumPool(2), 16), (nn.AvgPool2d(2), 16), (nn.AdaptiveAvgPool2d(1), 16), (nn.AvgPool2d(2, stride=1), 36)],
    ids=["sum", "mean", "global", "overlapping"],
)
def test_a_spike_is_delivered_through_every_window_it_lies_in(pool: nn.Module, reached: int) -> None:
    """16 spikes on a map of 4 x 4, then one output with a weight for each pooled position."""
    size = pool(torch.zeros(1, 1, 4, 4)).numel()
    model = nn.Sequential(LIF(), OverTime(pool, nn.Flatten(), nn.Linear(size, 1)))
    spikes = {"0": torch.ones(1, 4, 4).double()}
    (operations,) = synaptic_operations(model, torch.zeros(1, 4, 4).double(), spikes, 1, 1)
    assert (operations.acs, operations.dense, operations.layer) == (reached, size, "1.2")


@pytest.mark.parametrize(
    "build", [LeNet(channels=(2, 3), hidden=8).build, ResNet((1, 1), 4, image=(1, 8, 8), mean=(0.3,), std=(0.4,)).build]
)
def test_dense_operations_are_those_of_all_spikes_without_pooling(build: Callable[[], nn.Module]) -> None:
    """By brute force: convolve and multiply maps of ones with weights of ones."""
    model, totals, dense = build().eval(), dict[str, float](), dict[str, float]()

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def count(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
            ones, weight = torch.ones_like(inputs[0]).double(), next(layer.parameters()).detach().double()
            if isinstance(layer, nn.Conv2d):
                assert isinstance(layer.padding, tuple)
                reached = functional.conv2d(ones, torch.ones_like(weight), None, layer.stride, layer.padding)
            else:
                reached = ones @ torch.ones_like(weight).T
            dense[name] = float(reached.sum())

        return count

    image = torch.rand(1, *build.__self__.image)  # type: ignore[attr-defined]
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook(name))
    _, records = record(model, image)
    spikes = {name: run.trajectory.spikes[0, 0].double() for name, run in records.items()}
    steps = len(next(iter(records.values())).trajectory.spikes)
    for operations in synaptic_operations(model, torch.ones_like(image[0]).double(), spikes, steps, 1):
        totals[operations.layer] = operations.dense
    assert totals == dense


def homeostatic_network(k: float, reset: Reset = Reset.HARD) -> nn.Module:
    signature = torch.full((STEPS, 3), 0.5)
    return known(TALIF(signature, torch.tensor([k, 0.0, k]), Dynamics(1, 1, reset=reset)))


def test_errors_thresholds_and_extra_work_of_adapting_neurons() -> None:
    """u = 2, 2 or 0, and -2 or -1, whatever the threshold, as nothing is carried over: u - u* is known."""
    result = inspect(homeostatic_network(0.1), (X, Y), {"offset": Offset(0.25)})
    clean, offset = result.conditions
    layer = clean.layers[0]
    squares = [2 * 1.5**2, 1.5**2 + 0.5**2, 2.5**2 + 1.5**2]
    assert layer.error.from_signature == pytest.approx([sum(squares) / 6] * STEPS)
    assert layer.error.from_clean == () and layer.error_layer_alone is not None
    assert layer.error_layer_alone.from_signature == layer.error.from_signature
    assert layer.removed("from_signature") == 0 and math.isnan(layer.removed("from_clean"))
    drift_per_step = 0.1 * (2 * 1.5 - 2.5 - 1.5) / 6
    assert layer.threshold == pytest.approx([1 + drift_per_step * (t + 1) for t in range(STEPS)])
    assert layer.highest_threshold == pytest.approx(1 + 0.1 * 1.5 * STEPS)
    assert layer.lowest_threshold == pytest.approx(1 - 0.1 * 2.5 * STEPS)
    assert offset.layers[0].error.from_clean == pytest.approx([0.25**2] * STEPS)
    (drift,) = result.drift
    means = [2.0, 1.0, -1.5]
    assert drift.mean_square["3"] == pytest.approx(sum((mean - 0.5) ** 2 for mean in means) / 3)
    assert drift.by_chance["3"] == pytest.approx((0 + 1 + 0.25) / 3 / 2)
    ratio = sum((mean - 0.5) ** 2 for mean in means) / ((0 + 1 + 0.25) / 2)
    assert drift.over_chance("3") == pytest.approx(ratio)
    (sentence,) = drift_sentences(result)
    assert sentence.startswith("the signature does not fit") and f"{ratio:.0f} times" in sentence
    assert result.energy is not None
    assert (result.energy.adaptation.multiplies, result.energy.adaptation.adds) == (3 * STEPS, 6 * STEPS)
    assert result.energy.signature_bytes == 4 * (3 * STEPS + 3)
    (adaptive,) = result.adaptive
    assert (adaptive.lowest_adaptation, adaptive.neurons) == (0, 3)
    assert adaptive.mean_adaptation == pytest.approx(0.2 / 3)


@pytest.mark.parametrize("reset", list(Reset))
def test_the_certificate_is_of_the_measured_rates(reset: Reset) -> None:
    """Only a soft reset and k > 0 close the loop at a frozen rate; here a = 0, so that nothing is carried over."""
    layer = TALIF(torch.full((STEPS, 3), 0.5), torch.tensor([0.1, 0.0, 0.1]), Dynamics(5, 1, reset=reset))
    (adaptive,) = inspect(known(layer), (X, Y)).adaptive
    frozen = adaptive.frozen_rate
    assert (frozen.inside, frozen.open_loop) == ((1, 1) if reset is Reset.SOFT else (0, 2))
    assert (frozen.outside, frozen.silent) == (0, 1)


def lenet() -> nn.Module:
    torch.manual_seed(0)
    model = LeNet(channels=(3, 4), hidden=12).build().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)
    return homeostatic(model, calibrate(model, [torch.rand(8, 1, 28, 28)]))


def brighter(model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
    return (x + 0.05).clamp(max=1)


def test_an_attack_is_compared_with_the_clean_run_of_the_same_network() -> None:
    model, x = lenet(), torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    result = inspect(model, (x, torch.zeros(5, dtype=torch.int64)), {"brighter": brighter})
    layers = {layer.layer: layer for layer in result.conditions[1].layers}
    for network, field in ((model, "error"), (without_adaptation(model), "error_without_adaptation")):
        clean, moved = (record(network, images)[1] for images in (x, brighter(model, x, x, None)))  # type: ignore[arg-type]
        for name, layer in neurons(model).items():
            if not isinstance(layer, TALIF):
                assert layers[name].error_layer_alone is None
                continue
            difference = moved[name].trajectory.membrane - clean[name].trajectory.membrane
            expected = difference.double().square().flatten(1).mean(1).tolist()
            assert getattr(layers[name], field).from_clean == pytest.approx(expected, rel=1e-5)
    assert any(layer.error != layer.error_without_adaptation for layer in layers.values())
    assert all(layer.error_layer_alone != layer.error for layer in layers.values())


@pytest.mark.parametrize("frames", [False, True], ids=["images", "frames"])
def test_residual_networks_and_frames_are_inspected(frames: bool) -> None:
    torch.manual_seed(0)
    model = ResNet((1, 1), 4, image=(1, 8, 8), mean=(0.3,), std=(0.4,), steps=3).build().eval()
    x = torch.rand(*((2, 3) if frames else (2,)), 1, 8, 8)
    model = homeostatic(model, calibrate(model, [x]))
    result = inspect(model, (x, torch.tensor([0, 1])), {"offset": Offset(0.1)})
    assert [layer.layer for layer in result.conditions[0].layers] == list(neurons(model))
    assert result.energy is not None
    assert len(result.energy.synapses) == 7
    rates = {layer.layer: layer.rate for layer in result.conditions[0].layers}
    dense = next(part for part in result.energy.synapses if part.layer == "body.dense.2")
    size = record(model, x)[1]["body.stage2_1.neurons"].trajectory.spikes[0, 0].numel()
    assert dense.acs == pytest.approx(10 * 3 * size * rates["body.stage2_1.neurons"])


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = lenet(), (torch.rand(5, 1, 28, 28), torch.zeros(5, dtype=torch.int64))
    whole = inspect(model, data, {"offset": Offset(0.1)}, others={"noise": torch.rand(3, 1, 28, 28)})
    monkeypatch.setattr("hosnn.inspection.inspect.BLOCK", 1)
    parts = inspect(model, data, {"offset": Offset(0.1)}, others={"noise": torch.rand(3, 1, 28, 28)})
    for first, second in zip(whole.conditions, parts.conditions, strict=True):
        for one, other in zip(first.layers, second.layers, strict=True):
            assert (one.rate, one.silent, one.lowest_threshold) == (other.rate, other.silent, other.lowest_threshold)
            assert one.error.from_signature == pytest.approx(other.error.from_signature, rel=1e-5)
            assert one.error.from_clean == pytest.approx(other.error.from_clean, rel=1e-5)
    assert [drift.images for drift in whole.drift] == [5, 3]


def test_a_lif_network_is_measured_against_a_signature_given() -> None:
    model = without_adaptation(lenet())
    plain = LeNet(channels=(3, 4), hidden=12).build().eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "neurons" not in name})
    x, y = torch.rand(5, 1, 28, 28), torch.zeros(5, dtype=torch.int64)
    signature = calibrate(plain, [x])
    result = inspect(plain, (x, y), signature=signature)
    for layer in result.conditions[0].layers[:-1]:
        variance = signature.layers[layer.layer].variance.flatten(1).mean(1).tolist()
        assert layer.error.from_signature == pytest.approx(variance, rel=1e-4)
    assert max(result.drift[0].mean_square.values()) < 1e-9
    (sentence,) = drift_sentences(result)
    assert sentence.startswith("the signature fits")
    assert inspect(plain, (x, y)).drift == ()
    one = inspect(plain, (x[:1], y[:1]), signature=signature)
    (sentence,) = drift_sentences(one)
    assert "cannot be told from one" in sentence and math.isnan(one.drift[0].over_chance("4"))


@pytest.mark.parametrize("model", [known(), homeostatic_network(0.1)], ids=["LIF", "TA-LIF"])
def test_it_is_written_read_and_described_by_its_schema(model: nn.Module, tmp_path: Path) -> None:
    schema = json.loads(INSPECTION_FILE.read_text(encoding="utf-8"))
    assert schema == schema_of(Inspection), "write it anew: python -m hosnn.results.schema"
    result = inspect(model, (X, Y), {"offset": Offset(0.1)})
    result.save(tmp_path / "inspection.json")
    content = json.loads((tmp_path / "inspection.json").read_text(encoding="utf-8"))
    assert not list(Draft202012Validator(schema).iter_errors(content))
    read = Inspection.load(tmp_path / "inspection.json")
    assert replace(read, energy=None) == replace(result, energy=None)
    with pytest.raises(ConfigError, match="images"):
        Inspection.from_json(content | {"images": -1})


CONTRADICTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no condition": (lambda it: it["conditions"].clear(), "no condition"),
    "a layer without neurons": (lambda it: it["adaptive"][0].update(neurons=0), "do not add up to 0"),
    "a neuron more": (lambda it: it["adaptive"][0]["frozen_rate"].update(silent=10**6), "do not add up"),
    "drift of another layer": (lambda it: it["drift"][0]["by_chance"].clear(), "drift on"),
    "another name for a count": (lambda it: it["energy"]["neurobench"].update(more=1.0), "neurobench"),
    "another part of the energy": (lambda it: it["energy"]["picojoule"].clear(), "picojoule"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_an_inspection_that_contradicts_itself_is_refused(change: str) -> None:
    content = inspect(homeostatic_network(0.1), (X, Y), {"offset": Offset(0.1)}).to_json()
    edit, message = CONTRADICTIONS[change]
    edit(content)
    with pytest.raises(ConfigError, match=message):
        Inspection.from_json(content)


def encoded(tau_membrane: float = 1.0) -> SpikingNetwork:
    """2 pixels, a dead zone, a convolution with weights 1 and -1, a rectifier and pooling once; then 2 spiking neurons.

    The convolution of one pixel to 2 channels gives x and -x, rectified x and 0, pooled over both pixels.
    """
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    convolution.weight = nn.Parameter(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    return SpikingNetwork(
        nn.Sequential(DeadZone(0.1), Normalise((0.0,), (1.0,))),
        ConstantCoding(STEPS, tau_synapse=1),
        Body(
            OverTime(nn.Flatten(), linear([2.0, 1.0], [0.2, 0.0])),
            LIF(Dynamics(tau_membrane, 1)),
            OverTime(linear([1.0, 0.0], [1.0, 1.0])),
        ),
        MeanReadout(),
        encoder=AnalogueEncoder(OverTime(convolution), OverTime(nn.ReLU()), OverTime(SumPool(2, 1.0))),
    ).eval()


@pytest.mark.parametrize("timed", [False, True], ids=["images", "frames"])
def test_an_encoder_counts_as_multiply_accumulates_once_per_image(timed: bool) -> None:
    """Of 4 pixels, 3 and 1 exceed the dead zone: 2 weights each.  Then 1 of 2 features at every step: 2 and 0 weights.

    Of the first dense layer, weights 2 and 0.2 reach from the first feature and 1 from the second one, which is 0.
    Neuron 0 fires at every step and reaches 2 weights, neuron 1 never.
    """
    x = torch.tensor([[1.0, 0.9, 0.8, 0.1], [1.0, 0.1, 0.05, 0.0]]).view(2, 1, 2, 2)
    runs = STEPS if timed else 1
    if timed:
        x = x[:, None].expand(-1, STEPS, -1, -1, -1).contiguous()
    energy = inspect(encoded(), (x, Y)).energy
    assert energy is not None, "counted, not missing"
    first, second, third = energy.synapses
    assert (first.layer, first.macs, first.acs, first.dense) == ("encoder.0.0", runs * (3 + 1) / 2 * 2, 0, runs * 8)
    assert (second.layer, second.macs, second.acs, second.dense) == ("body.0.1", STEPS * 2, 0, STEPS * 4)
    assert (third.layer, third.macs, third.acs, third.dense) == ("body.2.0", 0, STEPS * 2, STEPS * 4)
    assert energy.neurobench["Effective_MACs"] == runs * 4 + STEPS * 2
    assert energy.neurobench["Dense"] == runs * 8 + STEPS * 8
    assert energy.picojoule["ann"] == pytest.approx((8 + 8) * 4.6), "each layer once"
    assert energy.rate == 0.5


def test_an_encoder_leaves_no_hooks_and_any_block_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = encoded(), torch.rand(5, 1, 2, 2)
    data = x, torch.zeros(5, dtype=torch.int64)
    whole = inspect(model, data).energy
    monkeypatch.setattr("hosnn.inspection.inspect.BLOCK", 1)
    parts = inspect(model, data).energy
    assert whole is not None and parts is not None and whole.synapses == parts.synapses
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_of_an_encoder_whose_inputs_nobody_recorded_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.0\.0 .* were not recorded"):
        synaptic_operations(encoded(), torch.ones(2, 1, 1).double(), {"body.1": torch.ones(2).double()}, STEPS, 1)


def test_neurons_without_a_leak_are_inspected() -> None:
    """And TA-LIF among them, whose linearised error has a decay of 1."""
    result = inspect(encoded(math.inf), (torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)))
    assert result.energy is not None and result.energy.neurobench["MembraneUpdates"] > 0
    adapting = TALIF(torch.full((STEPS, 3), 0.5), torch.tensor([0.1, 0.0, 0.1]), Dynamics(math.inf, 1))
    (layer,) = inspect(known(adapting), (X, Y)).adaptive
    assert layer.frozen_rate.silent + layer.frozen_rate.inside + layer.frozen_rate.outside <= 3


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


def test_what_cannot_be_counted_is_said_and_the_rest_is_measured() -> None:
    model = known()
    model.insert(4, Foreign())
    result = inspect(model, (X, Y))
    assert result.energy is None and "Foreign" in result.energy_missing
    assert result.conditions[0].layers[0].rate == 0.5
    with pytest.raises(ConfigError, match="nothing to look at"):
        inspect(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), (X, Y))


def test_offsets_have_the_same_size_for_all_images_and_spare_the_output() -> None:
    model = lenet()
    x = torch.rand(2, 1, 28, 28)
    currents = [record(model, x, offset)[1]["body.neurons1"].trajectory.membrane[0] for offset in (None, Offset(0.3))]
    difference = currents[1] - currents[0]
    torch.testing.assert_close(difference.abs(), torch.full_like(difference, 0.3))
    assert torch.equal(difference[0].sign(), difference[1].sign()) and 0.3 < (difference > 0).float().mean() < 0.7


def test_the_verb_prints_every_table_in_a_narrow_terminal_and_writes_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    model, out = request.config.rootpath / "models" / "fashion-mnist" / "homeostatic-clean", tmp_path / "i.json"
    options = ["--data", "fashion-mnist-sample", "--samples", "8", "--pgd-steps", "1", "--out", str(out)]
    options += ["--html", str(tmp_path / "i.html")]
    assert main(["inspect", str(model), *options]) == 0
    printed = capsys.readouterr().out
    for said in (
        "body.neurons1",
        "PGD-1",
        "u - u*",
        "responding",
        "drift",
        "Effective_ACs",
        "a quantised ANN",
        str(out.name),
    ):
        assert said in printed.replace("\n", "")
    assert "…" not in printed and all(len(line) <= 80 for line in printed.splitlines() if "│" in line)
    result = Inspection.load(out)
    assert [condition.name for condition in result.conditions] == ["clean", "PGD-1 linf:8/255", "offset 0.1"]
    assert (result.images, len(result.adaptive)) == (8, 3)
    html = (tmp_path / "i.html").read_text(encoding="utf-8")
    assert "choose-neuron" in html and "PGD-1 linf:8/255" in html and len(html) < 1_500_000
    markdown = inspections_markdown([result]).splitlines()
    assert len(markdown) == 2 + 3 * 3 and len({line.count("|") for line in markdown}) == 1
    assert main(["inspect", str(model), "--samples", "0"]) == 2


def test_the_verb_attacks_as_the_threat_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Frames where every time step has its own perturbation; events only where there are some."""
    shapes: list[tuple[int, ...]] = []
    attack = PGD.__call__

    def watched(self: PGD, model: Any, x: torch.Tensor, *more: Any) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return attack(self, model, x, *more)

    monkeypatch.setattr(PGD, "__call__", watched)
    model = str(request.config.rootpath / "models" / "fashion-mnist" / "homeostatic-clean")
    options = ["--data", "fashion-mnist-sample", "--samples", "4", "--pgd-steps", "1", "--threat"]
    assert main(["inspect", model, *options, "linf:8/255/step"]) == 0
    assert shapes and all(shape[1:] == (5, 1, 28, 28) for shape in shapes)
    capsys.readouterr()
    assert main(["inspect", model, *options, "events:20/8"]) == 2
    assert "got the threat events:20/8 for images" in capsys.readouterr().err
