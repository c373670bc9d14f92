"""A stream: one time step at a time gives what the network gives over all of them, in constant memory."""

import math
import resource
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hosnn
from hosnn.errors import ConfigError, ShapeError
from hosnn.nn.convnet import ConvNet
from hosnn.nn.layers import ConstantCoding, MeanReadout, Normalise, OverTime, TimeDropout
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, TALIF, Emit, Extrapolation
from hosnn.nn.normalisation import Norm, TimeBatchNorm
from hosnn.nn.resnet import ResNet
from hosnn.nn.streaming import stream
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature import calibrate, homeostatic
from hosnn.spiking.kernels import backend
from hosnn.spiking.state import Dynamics, Reset

STEPS = 5


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


LAYERS: dict[str, Callable[[Extrapolation], LIF]] = {
    "LIF": lambda _: LIF(),
    "LIF, soft reset": lambda _: LIF(Dynamics(3, 2, 0.7, Reset.SOFT)),
    "LIF, spikes": lambda _: LIF(emit=Emit.SPIKES),
    "TA-LIF": lambda beyond: TALIF(values(STEPS, 6), 0.3 * values(6), beyond=beyond),
    "TA-LIF, soft reset": lambda beyond: TALIF(
        values(STEPS, 6), 0.01, Dynamics(reset=Reset.SOFT), emit=Emit.SPIKES, beyond=beyond
    ),
    "thresholds": lambda _: ThresholdLIF(0.5 + values(1, 6)),
    "thresholds per step": lambda beyond: ThresholdLIF(0.5 + values(STEPS, 6), learn=False, beyond=beyond),
}
EXTENDED = (Extrapolation.HOLD_LAST, Extrapolation.REPEAT)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("beyond", EXTENDED, ids=str)
@pytest.mark.parametrize("kernel", ["auto", "eager"])
def test_every_neuron_equals_the_batch_form_to_the_bit(name: str, beyond: Extrapolation, kernel: str) -> None:
    layer = LAYERS[name](beyond).eval()
    currents = 2 * values(300, 3, 6, seed=1) - 0.5
    with backend.choose(kernel), torch.no_grad():
        expected = layer(currents)
    running = stream(layer)
    outputs = torch.stack([running.step(current) for current in currents])
    assert torch.equal(outputs, expected)
    assert 0.02 < (expected.diff(dim=0) != 0).float().mean()  # it fires


def lenet() -> nn.Module:
    return LeNet(channels=(4, 6), hidden=20, spiking_output=False).build()


def dense() -> nn.Module:
    """The three lines of the README, with biases and a layer after the readout."""
    return nn.Sequential(
        Normalise((0.3,), (0.4,)),
        ConstantCoding(STEPS),
        OverTime(nn.Flatten(), nn.Linear(784, 20), nn.GELU()),
        LIF(),
        TimeDropout(0.3),
        OverTime(nn.Linear(20, 10)),
        MeanReadout(),
        nn.Softplus(),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LeNet": lenet,
    "dense": dense,
    "BatchNorm": ConvNet("4C3-P2-6C3-P2-12-10", (1, 28, 28), (0.3,), (0.4,)).build,
    "BatchNorm per step, mean pooling": ConvNet(
        "4C3-P2-12-10", (1, 28, 28), (0.3,), (0.4,), norm=Norm.PER_STEP, pool_gain=0.25, spiking_output=False
    ).build,
    "encoder, dead zone": ConvNet(
        "4C3-P2-6C3-12-10", (1, 28, 28), (0.3,), (0.4,), analogue_layers=1, dead_zone=0.2, padded=False
    ).build,
    "no leak": ConvNet("4C3-P2-12-10", (1, 28, 28), (0.3,), (0.4,), dynamics=Dynamics(math.inf, 1.5)).build,
    "ResNet": ResNet((1, 1), 4, image=(1, 28, 28), mean=(0.3,), std=(0.4,), spiking_output=True).build,
    "ResNet per step": ResNet((1, 1), 4, image=(1, 28, 28), mean=(0.3,), std=(0.4,), norm=Norm.PER_STEP).build,
}


def network(name: str, adaptive: bool) -> nn.Module:
    """In double precision, in which no spike is near enough to its threshold for rounding to matter."""
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    model.train()(values(6, 1, 28, 28, seed=7).double())  # moves running statistics
    model.eval()
    return homeostatic(model, calibrate(model, [values(8, 1, 28, 28, seed=9).double()])) if adaptive else model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("adaptive", [False, True], ids=["LIF", "TA-LIF"])
@pytest.mark.parametrize("frames", [False, True], ids=["image", "frames"])
def test_logits_equal_those_of_the_batch_form(name: str, adaptive: bool, frames: bool) -> None:
    model = network(name, adaptive)
    recording = values(3, STEPS, 1, 28, 28, seed=2).double()
    running = stream(model)
    for _ in range(2):  # the second time after a reset
        for t in range(STEPS):
            logits = running.step(recording[:, t if frames else 0])
        with torch.no_grad():
            expected = model(recording if frames else recording[:, 0])
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
        assert running.steps == STEPS
        running.reset()
    assert expected.std() > 1e-3


@pytest.mark.parametrize("kind", ["lif-clean", "homeostatic-fgsm"])
def test_shipped_networks_in_float32_within_1e_5(kind: str, request: pytest.FixtureRequest) -> None:
    model = hosnn.load(request.config.rootpath / "models" / "fashion-mnist" / kind)
    x, running = values(64, 1, 28, 28), stream(model)
    for _ in range(model.steps):
        logits = running.step(x)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(x), rtol=0, atol=1e-5)


def test_the_latest_output_is_what_the_mean_is_taken_of() -> None:
    model, x = network("LeNet", True), values(2, 1, 28, 28).double()
    running = stream(model)
    assert running.output is None
    latest: list[Tensor] = []
    for _ in range(STEPS):
        logits = running.step(x)
        assert running.output is not None
        latest.append(running.output)
    torch.testing.assert_close(torch.stack(latest).mean(0), logits)


@pytest.mark.parametrize("name", ["LeNet", "BatchNorm per step, mean pooling"])
def test_beyond_its_steps_a_network_does_what_was_chosen(name: str) -> None:
    model, x = network(name, True), values(2, 1, 28, 28).double()
    strict, extended = stream(model), {beyond: stream(model, beyond) for beyond in EXTENDED}
    for _ in range(STEPS):
        strict.step(x)
    with pytest.raises(ShapeError, match="6 "):
        strict.step(x)
    assert strict.steps == STEPS
    layers = [layer for layer in model.modules() if isinstance(layer, (TALIF, TimeBatchNorm))]
    for beyond, running in extended.items():
        for _ in range(3 * STEPS):
            logits = running.step(x)
        for layer in layers:
            layer.beyond = beyond
        model.coding.steps = 3 * STEPS  # type: ignore[union-attr]
        with torch.no_grad():
            torch.testing.assert_close(logits, model(x), rtol=0, atol=1e-9)


def test_ten_thousand_steps_do_not_grow() -> None:
    """A state kept for every step would take 15 MB per thousand steps."""
    model = nn.Sequential(
        ConstantCoding(STEPS),
        OverTime(nn.Flatten(), nn.Linear(16, 1000)),
        LIF(),
        OverTime(nn.Linear(1000, 3)),
        MeanReadout(),
    )
    model.eval()
    model = homeostatic(model, calibrate(model, [values(8, 1, 4, 4)]))
    running, x = stream(model, Extrapolation.REPEAT), values(1, 1, 4, 4)

    def run(steps: int) -> int:
        for _ in range(steps):
            running.step(x)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(500)
    assert run(10_000 - 500) - before < 8_000  # kB
    assert running.steps == 10_000


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(0)


def hooked(layer: nn.Module | None = None) -> nn.Module:
    layer = layer or LIF()
    layer.register_forward_hook(lambda *_: None)
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "foreign": (lambda: nn.Sequential(ConstantCoding(), Foreign(), MeanReadout()), r"1 \(Foreign\)"),
    "torch's module over time": (lambda: nn.Sequential(ConstantCoding(), nn.Flatten(), MeanReadout()), "Flatten"),
    "subclass": (lambda: nn.Sequential(type("Other", (LIF,), {})()), "Other"),
    "hooks": (hooked, "hooks"),
    "hooks inside": (lambda: nn.Sequential(ConstantCoding(), OverTime(hooked(nn.Flatten())), MeanReadout()), "hooks"),
    "hooks before the time axis": (lambda: nn.Sequential(hooked(nn.Identity()), ConstantCoding()), "hooks"),
    "neurons on images": (lambda: nn.Sequential(LIF(), ConstantCoding(), MeanReadout()), "LIF"),
    "neurons without time": (lambda: nn.Sequential(OverTime(nn.Linear(2, 2), LIF())), "no time axis"),
    "statistics of the batch": (
        lambda: nn.Sequential(OverTime(nn.BatchNorm1d(2, track_running_stats=False))),
        "each batch's statistics",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_one_step_at_a_time_is_refused(name: str) -> None:
    build, match = REFUSED[name]
    with pytest.raises(ConfigError, match=match):
        stream(build().eval())


def test_frames_of_another_shape_and_models_in_training_are_refused() -> None:
    model = lenet()
    with pytest.raises(ConfigError, match="eval"):
        stream(model.train())
    running = stream(model.eval())
    with pytest.raises(ShapeError, match="one time step"):
        running.step(values(1, 28, 28))
    running.step(values(2, 1, 28, 28))
    with pytest.raises(ShapeError, match="reset"):
        running.step(values(3, 1, 28, 28))
    running.reset()
    running.step(values(3, 1, 28, 28))


def test_a_stream_leaves_the_model_alone_and_gives_no_gradient() -> None:
    model = network("ResNet", True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = stream(model).step(values(2, 1, 28, 28).double().requires_grad_())
    assert not logits.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
