"""Models of every make: the network inside is used and that is said, spikes are "unknown", or a clear refusal."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import hosnn
from hosnn.checks.model_checks import gradient_estimators
from hosnn.checks.rounding import unmoved_inputs
from hosnn.cli.main import main
from hosnn.cli.target import load_networks, load_target
from hosnn.errors import CheckpointError, ConfigError, ShapeError, UnwrappedWarning
from hosnn.estimators import Through, with_rule
from hosnn.evaluation.evaluate import evaluate
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import LIF, neurons
from hosnn.nn.unwrapping import unwrapped
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.protocol import Protocol
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.signature import fingerprint
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Arctan
from tests.checks import foreign, planted
from tests.evaluation.test_evaluate import without_time

THREAT = Threat(Linf(0.1))
IMAGES = planted.images(20)
PLAN = Protocol(
    name="test",
    description="made for a test",
    threat=THREAT,
    attacks=(attack_spec("PGD", PGD(THREAT, 2), bptt(Arctan())),),
    samples=None,
    block_size=8,
)


@contextmanager
def torch_may_warn() -> Iterator[None]:
    """Inside, warnings of torch (scripts and quantisation are deprecated) are not errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def each_layer(change: Callable[[LIF], None]) -> Callable[[nn.Module], nn.Module]:
    def changed(model: nn.Module) -> nn.Module:
        for layer in neurons(model).values():
            change(layer)
        return model

    return changed


def compile_forward(layer: LIF) -> None:
    layer.forward = compiled(layer.forward)  # type: ignore[method-assign]


def compile_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compile_a_part(model: Any) -> nn.Module:
    model.body[0] = compiled(model.body[0])
    return model  # type: ignore[no-any-return]


def in_fabric(model: nn.Module) -> nn.Module:
    return Fabric(accelerator="cpu", devices=1).setup(model)  # type: ignore[no-any-return]


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": compiled,
    "compiled, full graph": lambda model: torch.compile(model, backend="eager", fullgraph=True),
    "compiled twice": lambda model: compiled(nn.DataParallel(compiled(model))),
    "compiled in place": compile_in_place,
    "layers compiled in place": each_layer(lambda layer: layer.compile(backend="eager")),
    "forwards of layers compiled": each_layer(compile_forward),
    "a part compiled": compile_a_part,
    "DataParallel": nn.DataParallel,
    "Fabric": in_fabric,
    "averaged": AveragedModel,
}


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The result of the network without a wrapper."""
    return without_time(evaluate(planted.spiking(), IMAGES, PLAN, threads=2))


@pytest.mark.parametrize("name", WRAPPERS)
def test_of_a_wrapped_network_the_one_inside_is_evaluated_and_that_is_said(name: str, plain: dict[str, Any]) -> None:
    model = WRAPPERS[name](planted.spiking())
    before = fingerprint(model)
    with pytest.warns(UnwrappedWarning, match="evaluate got a model inside"):
        result = evaluate(model, IMAGES, PLAN, threads=2)
    assert without_time(result) == plain
    assert result.network.layers and result.network.copies == "equal"
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", ["compiled", "compiled in place", "DataParallel"])
def test_foreign_spikes_are_seen_through_wrappers(name: str) -> None:
    with pytest.warns(UnwrappedWarning):
        result = evaluate(WRAPPERS[name](foreign.Network()), IMAGES, PLAN, threads=2)
    assert (result.network.spiking, result.network.copies) == ("foreign", "equal")


@pytest.mark.parametrize("name", WRAPPERS)
def test_estimators_see_through_wrappers(name: str) -> None:
    """The attack on the wrapped network gives the bits of that on the network itself, by the estimator's gradient."""
    x, y = IMAGES
    attack = Through(bptt(Arctan()), PGD(THREAT, 2))
    with pytest.warns(UnwrappedWarning, match="Through got"):
        x_adv = attack(WRAPPERS[name](planted.spiking()), x, y, SampleRandom(0, torch.arange(len(x))))
    assert torch.equal(x_adv, attack(planted.spiking(), x, y, SampleRandom(0, torch.arange(len(x)))))
    own_gradient = PGD(THREAT, 2)(planted.spiking(), x, y, SampleRandom(0, torch.arange(len(x))))
    assert not torch.equal(x_adv, own_gradient)


def test_the_model_that_was_given_stays_as_it_is() -> None:
    model = compile_in_place(each_layer(compile_forward)(planted.spiking()))
    forwards = [layer.forward for layer in neurons(model).values()]
    with pytest.warns(UnwrappedWarning):
        plain = unwrapped(model, "a test")
    assert model._compiled_call_impl is not None
    assert [layer.forward for layer in neurons(model).values()] == forwards
    assert plain._compiled_call_impl is None and not any("forward" in vars(layer) for layer in plain.modules())
    assert {id(p) for p in plain.parameters()} == {id(p) for p in model.parameters()}
    assert not {id(module) for module in plain.modules()} & {id(module) for module in model.modules()}


def test_a_plain_network_is_returned_itself() -> None:
    for model in (planted.spiking(), foreign.Network(), len):
        assert unwrapped(model, "a test") is model


def test_a_compiled_function_is_unwrapped() -> None:
    network = planted.ordinary()
    with pytest.warns(UnwrappedWarning):
        result = evaluate(compiled(lambda x: network(x)), IMAGES, PLAN)
    assert result.clean == evaluate(network, IMAGES, PLAN).clean


def test_a_copy_of_a_network_compiled_in_place_runs_its_own_layers() -> None:
    """Its compiled call would otherwise run the layers of the original."""
    model = compile_in_place(planted.spiking())
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        assert not torch.equal(copied(IMAGES[0]), model(IMAGES[0]))


def test_hooks_of_a_wrapper_are_not_dropped() -> None:
    model = nn.DataParallel(planted.spiking())
    model.register_forward_pre_hook(lambda module, inputs: (1 - inputs[0],))
    with pytest.raises(ConfigError, match="DataParallel with hooks of its own"):
        evaluate(model, IMAGES, PLAN)


@pytest.mark.parametrize(
    "act",
    [
        lambda model: hosnn.calibrate(model, [IMAGES[0]]),
        lambda model: hosnn.homeostatic(model, hosnn.calibrate(planted.spiking(), [IMAGES[0]])),
        lambda model: with_rule(model, bptt(Arctan())),
        lambda model: hosnn.inspect(model, IMAGES),
    ],
    ids=["calibrate", "homeostatic", "with_rule", "inspect"],
)
def test_other_functions_use_the_network_inside(act: Callable[[nn.Module], Any]) -> None:
    with pytest.warns(UnwrappedWarning):
        act(compiled(planted.spiking()))


# what estimators do not reach


def wrap_forward(layer: LIF) -> None:
    original = layer.forward

    def forward(*arguments: Any, **named: Any) -> Tensor:
        return original(*arguments, **named)

    layer.forward = forward  # type: ignore[method-assign]


class Reimplemented(LIF):
    """A subclass that is free to run the layer as it likes, by its own rule."""

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        return super().forward(*arguments, **named)


def test_a_layer_whose_forward_was_replaced_is_refused_before_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would run the original layer, by the original rule: every estimator would silently be off."""
    model = each_layer(wrap_forward)(planted.spiking())
    with pytest.raises(ConfigError, match="was replaced by a function that runs the layer"):
        x, y = IMAGES
        Through(bptt(Arctan()), PGD(THREAT, 2))(model, x, y, SampleRandom(0, torch.arange(len(x))))
    monkeypatch.setattr(PGD, "__call__", None)
    with pytest.raises(ConfigError, match="gradient estimator would do nothing"):
        evaluate(model, IMAGES, PLAN)


def test_a_forward_replaced_in_a_class_is_fine(plain: dict[str, Any]) -> None:
    model = planted.spiking()
    for layer in neurons(model).values():
        layer.__class__ = Reimplemented
    assert (
        without_time(evaluate(model, IMAGES, PLAN))["rows"]
        == without_time(evaluate(planted.spiking(), IMAGES, PLAN))["rows"]
    )


def test_a_network_that_cannot_be_copied_is_refused_by_name() -> None:
    model = planted.spiking()
    model.generator = (number for number in range(3))  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"gradient estimators need a copy of the network, and .* cannot be copied"):
        evaluate(model, IMAGES, PLAN)


# where spikes cannot be ruled out


def quantised(model: nn.Module) -> nn.Module:
    with torch_may_warn():
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})  # type: ignore[no-any-return, no-untyped-call]


def traced(model: nn.Module) -> nn.Module:
    with torch_may_warn():
        return torch.jit.trace(model, IMAGES[0][:3])  # type: ignore[no-any-return, no-untyped-call]


def scripted(model: nn.Module) -> nn.Module:
    with torch_may_warn():
        return torch.jit.script(model)


def exported(model: nn.Module, any_number: bool = True) -> Any:
    shapes = ({0: torch.export.Dim("batch")},) if any_number else None
    with torch_may_warn():
        return torch.export.export(model, (IMAGES[0][:3],), dynamic_shapes=shapes)


class Spikes(nn.Module):
    """Spikes that are not ours."""

    def forward(self, x: Tensor) -> Tensor:
        return foreign.step(x)


def small(neurons: nn.Module | None = None) -> nn.Module:
    """A spiking network, of ours without `neurons`, that is quick to trace."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            hosnn.ConstantCoding(steps=2),
            hosnn.OverTime(nn.Flatten(), nn.Linear(planted.SIDE**2, 16)),
            neurons or hosnn.LIF(),
            hosnn.OverTime(nn.Linear(16, planted.CLASSES)),
            hosnn.MeanReadout(),
        ).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "spiking", "evidence"),
    [
        (lambda: exported(small()).module(), "unknown", "the operation hosnn::neuron"),
        (lambda: exported(small(Spikes())).module(), "unknown", "a comparison"),
        (lambda: exported(planted.ordinary()).module(), "none", ""),
        (lambda: traced(small()), "unknown", "cannot be seen"),
        (lambda: scripted(planted.ordinary()), "none", ""),
        (lambda: quantised(planted.ordinary()), "unknown", "the operation quantized::linear_dynamic"),
        (lambda: quantised(small()), "hosnn", "the operation quantized::linear_dynamic"),
    ],
    ids=["exported", "exported foreign", "exported ReLU", "traced", "scripted", "quantised ReLU", "quantised"],
)
def test_spikes_that_cannot_be_seen_are_not_ruled_out(make: Callable[[], Any], spiking: str, evidence: str) -> None:
    result = evaluate(make(), IMAGES, PLAN, threads=2)
    assert result.network.spiking == spiking and evidence in result.network.evidence
    assert bool(result.network.evidence) == bool(evidence)
    severity = gradient_estimators(result.network.spiking, result.network.evidence).severity
    assert severity == ("warn" if evidence else "pass")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, when it copies what it exported
def test_an_exported_program_is_taken_for_its_module() -> None:
    with pytest.warns(UnwrappedWarning, match="ExportedProgram"):
        result = evaluate(exported(planted.ordinary()), IMAGES, PLAN)
    assert result.clean == evaluate(planted.ordinary(), IMAGES, PLAN).clean


OWN = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def program():
    return torch.export.export(network(), (torch.rand(3, 1, 28, 28),), dynamic_shapes=({0: torch.export.Dim("b")},))

def exported():
    return program().module()

compiled = torch.compile(network(), backend="eager")
"""


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_command_takes_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own_makes.py"
    file.write_text(OWN)
    for name in ("program", "compiled"):
        with pytest.warns(UnwrappedWarning):
            assert load_target(Path(f"{file}:{name}"), "fashion-mnist-sample", None).data.name
    (network,) = load_networks((Path(f"{file}:exported"),)).values()
    assert not network.training
    options = ["--data", "fashion-mnist-sample", "--samples", "20", "--out", str(tmp_path / "out"), "--attacks-only"]
    assert main(["evaluate", f"{file}:exported", *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"{file}:compiled", *options]) == 0
    assert "note" in capsys.readouterr().err


# batches of any size


class KeepsMembrane(nn.Module):
    """Forgets to start from rest, so a batch of another size meets the membranes of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(planted.SIDE**2, planted.CLASSES)
        self.membrane: Tensor | float = 0.0

    def reset(self) -> None:
        self.membrane = 0.0

    def forward(self, x: Tensor) -> Tensor:
        membrane: Tensor = 0.5 * self.membrane + self.linear(x.flatten(1))
        self.membrane = membrane
        return membrane


def by_batch() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(planted.SIDE**2, planted.CLASSES), nn.BatchNorm1d(4, track_running_stats=False)
    ).eval()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (KeepsMembrane, r"took 16 images at once, but then fails on 1: .*call reset\(\) of every KeepsMembrane first"),
        (by_batch, "fails on 1: .*2 normalises by the statistics of each batch"),
        (lambda: exported(planted.ordinary(), False).module(), "does not take images"),
    ],
    ids=["state between calls", "batch statistics", "exported for one size"],
)
def test_a_model_of_one_batch_size_is_refused_before_an_attack(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        evaluate(make(), IMAGES, PLAN)


# what save writes, load reads


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(x))
        return output


class WithExtraState(Tied):
    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


NETWORK = LeNet(channels=(1, 2), hidden=4, classes=3, image=(1, 16, 16))


@pytest.mark.parametrize("name", ["compiled", "layers compiled in place", "DataParallel", "Fabric", "averaged"])
def test_a_wrapped_network_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    network = NETWORK.build().eval()
    expected = fingerprint(network)
    with pytest.warns(UnwrappedWarning, match="save got"):
        hosnn.save(WRAPPERS[name](network), tmp_path / "saved")
    assert fingerprint(hosnn.load(tmp_path / "saved")) == expected
    with pytest.warns(UnwrappedWarning, match="load_into got"):
        filled = hosnn.load_into(WRAPPERS[name](NETWORK.build()), tmp_path / "saved")
    assert fingerprint(filled) == expected


def test_tied_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    network, other = Tied(), Tied()
    hosnn.save(network, tmp_path / "saved")
    hosnn.load_into(other, tmp_path / "saved")
    assert fingerprint(network) == fingerprint(other) and other.first.weight is other.second.weight
    with pytest.raises(CheckpointError, match=r"a class of your own.*load_into"):
        hosnn.load(tmp_path / "saved")


@pytest.mark.parametrize("make", [WithExtraState, lambda: quantised(Tied())], ids=["extra state", "quantised"])
def test_state_that_no_checkpoint_holds_is_refused_when_it_is_saved(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint holds plain tensors only"):
        hosnn.save(make(), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_networks_with_other_state_than_tensors_have_fingerprints() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tied()
    first, again, other = quantised(network), quantised(network), quantised(Tied())
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert len(fingerprint(WithExtraState())) == 64


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_model_whose_layers_take_no_hooks_can_be_checked() -> None:
    moved = unmoved_inputs(scripted(planted.ordinary()), planted.images(6)[0], Threat(Linf(8 / 255)))
    assert moved == {}, "nothing is known of its layers"
