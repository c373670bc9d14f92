"""The layers: shapes checked, signatures used to their length and beyond as asked, k never negative."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, ShapeError
from hosnn.nn.neurons import LIF, TALIF, Emit, Extrapolation, constrain_, hidden_neurons, neurons
from hosnn.spiking.gradient_rule import bptt, tssl_bp
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import Rectangle


def currents(steps: int = 5, batch: int = 3, *shape: int) -> Tensor:
    return torch.rand(steps, batch, *(shape or (6,)), generator=torch.Generator().manual_seed(0)) * 2


def signature(steps: int = 5, *shape: int) -> Tensor:
    return torch.rand(steps, *(shape or (6,)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", [LIF(), TALIF(signature()), TALIF(signature(), rule=tssl_bp())])
def test_a_layer_emits_traces_or_spikes_of_one_trajectory(layer: LIF) -> None:
    x = currents()
    run = layer.trajectory(x)
    assert torch.equal(layer(x), run.trace)
    layer.emit = Emit.SPIKES
    assert torch.equal(layer(x), run.spikes)
    assert set(run.spikes.flatten().tolist()) == {0.0, 1.0}


def test_a_layer_takes_any_number_of_neuron_dimensions() -> None:
    for shape in ((6,), (2, 3), (2, 3, 4)):
        x = currents(5, 3, *shape)
        assert LIF()(x).shape == x.shape
        flat = TALIF(signature(5, *shape).flatten(1))(x.flatten(2))
        assert torch.equal(TALIF(signature(5, *shape))(x), flat.view_as(x))
    assert LIF()(torch.rand(5, 3)).shape == (5, 3)


@pytest.mark.parametrize(
    "wrong",
    [torch.rand(5), torch.rand(0, 3, 6), torch.ones(5, 3, 6, dtype=torch.int64)],
    ids=["one dimension", "no step", "integers"],
)
def test_currents_that_are_no_currents_are_refused(wrong: Tensor) -> None:
    for layer in (LIF(), TALIF(signature())):
        for call in (layer, layer.trajectory):
            with pytest.raises(ShapeError, match=r"\[T, B, \*N\], time first"):
                call(wrong)


def test_currents_of_another_size_than_the_signature_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"got currents \(5, 3, 7\).*signature \(5, 6\).*calibrate"):
        TALIF(signature())(currents(5, 3, 7))


def test_fewer_steps_than_the_signature_use_its_beginning() -> None:
    x = currents(3)
    assert torch.equal(TALIF(signature(5))(x), TALIF(signature(5)[:3])(x))


@pytest.mark.parametrize(
    ("beyond", "rows"), [(Extrapolation.HOLD_LAST, [0, 1, 2, 2, 2]), (Extrapolation.REPEAT, [0, 1, 2, 0, 1])]
)
def test_beyond_the_signature_is_what_the_user_chose(beyond: Extrapolation, rows: list[int]) -> None:
    x, known = currents(5), signature(3)
    assert torch.equal(TALIF(known, beyond=beyond)(x), TALIF(known[rows])(x))


def test_beyond_the_signature_is_an_error_unless_chosen() -> None:
    with pytest.raises(ShapeError, match=r"5 time steps but was calibrated on 3.*HOLD_LAST"):
        TALIF(signature(3))(currents(5))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 1), (), (1,)])
def test_adaptation_may_be_shared(shape: tuple[int, ...]) -> None:
    x, target = currents(5, 3, 2, 3, 4), signature(5, 2, 3, 4)
    layer = TALIF(target, torch.full(shape, 0.3))
    assert layer.adaptation.shape == shape
    assert torch.equal(layer(x), TALIF(target, torch.full((2, 3, 4), 0.3))(x))


def test_adaptation_that_does_not_fit_or_is_negative_is_refused() -> None:
    with pytest.raises(ShapeError, match="broadcasts to the neurons"):
        TALIF(signature(), torch.full((5,), 0.2))
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match="k >= 0"):
            TALIF(signature(), wrong)


def test_constrain_projects_k_and_nothing_else() -> None:
    pushed, kept = TALIF(signature(), torch.zeros(6)), TALIF(signature())
    model = nn.Sequential(pushed, LIF(), kept)
    with torch.no_grad():
        pushed.adaptation.copy_(torch.tensor([-1.0, 0.5, -0.1, 0.0, 2.0, -3.0]))
    constrain_(model)
    assert pushed.adaptation.tolist() == [0.0, 0.5, 0.0, 0.0, 2.0, 0.0]
    assert kept.adaptation.item() == torch.tensor(0.2).item()


def test_a_layer_owns_its_signature_and_learns_only_k() -> None:
    target = signature()
    layer = TALIF(target)
    target.zero_()
    assert layer.signature.abs().max() > 0
    assert [name for name, _ in layer.named_parameters()] == ["adaptation"]
    assert set(layer.state_dict()) == {"adaptation", "signature"}
    assert list(LIF().state_dict()) == []


def test_from_lif_keeps_what_the_layer_was() -> None:
    layer = LIF(Dynamics(4.0, 2.0, reset=Reset.SOFT), bptt(Rectangle()), Emit.SPIKES)
    twin = TALIF.from_lif(layer, signature(), 0.0)
    assert (twin.dynamics, twin.rule, twin.emit) == (layer.dynamics, layer.rule, layer.emit)
    assert torch.equal(twin(currents()), layer(currents()))


def test_neurons_are_found_by_path_and_fixed_ones_take_no_part() -> None:
    model = nn.ModuleDict({"a": LIF(), "b": nn.Sequential(nn.Linear(2, 2), LIF(fixed_threshold=True))})
    assert list(neurons(model)) == ["a", "b.1"] and list(hidden_neurons(model)) == ["a"]


def test_gradient_exists_without_training_mode_and_none_is_kept_without_grad() -> None:
    for rule in (bptt(), tssl_bp()):
        layer, x = TALIF(signature(), rule=rule).eval(), currents().requires_grad_()
        assert layer(x).requires_grad
        with torch.no_grad():
            assert not layer(x).requires_grad


def test_spikes_under_the_local_rule_are_refused_because_k_would_not_learn() -> None:
    with pytest.raises(ConfigError, match="k would not learn"):
        TALIF(signature(), rule=tssl_bp(), emit=Emit.SPIKES)
