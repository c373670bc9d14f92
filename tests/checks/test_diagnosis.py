"""Each measured figure on models for which it is known, and that measuring leaves no trace."""

import math
import random
from dataclasses import asdict, replace

import numpy
import pytest
import torch
from torch import Tensor, nn

from hosnn.checks.diagnosis import Diagnosis, diagnose
from hosnn.checks.inspection import inspect_network
from hosnn.checks.model_checks import dead_pixels as dead_pixels_check
from hosnn.checks.model_checks import train_and_eval_mode
from hosnn.nn.encoder import DeadZone
from hosnn.nn.neurons import LIF, TALIF
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.model import count_passes
from hosnn.robustness.threats import Threat
from hosnn.signature.ablations import without_adaptation
from tests.checks import planted
from tests.checks.planted import Around

X, Y = planted.images(32)
THREAT = Threat(Linf(0.1))


class Linear(nn.Module):
    """logits = scale · W x over 64 pixels, four classes; everything about it is known."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(planted.CLASSES, 64, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class Turned(Linear):
    """The right answer, the gradient reversed."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return 2 * logits.detach() - logits


class HalfClamped(Linear):
    """16 of 64 pixels are held at 1: no gradient, and no effect either.  16 more only once they exceed 0.97."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        held, late = torch.ones_like(flat[:, :16]), flat[:, 16:32].clamp(min=0.97)
        return torch.cat([held, late, flat[:, 32:]], 1) @ self.weight.T


def measured(model: nn.Module, threat: Threat = THREAT) -> Diagnosis:
    return diagnose(model, X, Y, threat)


def test_a_linear_model_is_beyond_doubt() -> None:
    found = measured(Linear())
    assert found.has_gradient
    assert found.fidelity == 1.0  # the gradient's step is the best there is
    shares = "zero_gradients saturated_loss changed_without_budget dead_pixels batch_classes training_logits"
    for name in (*shares.split(), "randomness", "carried_state"):
        assert getattr(found, name) == 0.0, name
    assert (found.logits_dtype, found.fits_16_bits, found.distinct_logits) == ("float32", False, 1.0)


def test_a_reversed_gradient_never_wins() -> None:
    assert measured(Turned()).fidelity == 0.0


def test_saturation_grows_with_the_scale_of_logits() -> None:
    right = Linear()(X).argmax(1)
    wrong = (right + 1) % planted.CLASSES
    quiet, loud = (diagnose(Linear(scale), X, right, THREAT) for scale in (0.01, 1000.0))
    assert quiet.saturated_softmax == quiet.saturated_loss == 0.0
    assert loud.saturated_softmax > 0.9
    assert loud.saturated_loss > 0.9  # type: ignore[operator]
    assert loud.zero_gradients == 0.0
    # Cross-entropy keeps its gradient where the image is misclassified, however loud the logits.
    assert diagnose(Linear(1000.0), X, wrong, THREAT).saturated_loss == 0.0


def test_only_pixels_that_matter_within_the_budget_count_as_dead() -> None:
    """32 of 64 pixels have no gradient: 16 never matter, 16 once they exceed 0.97, which a budget of 0.1 cannot."""
    model, x = HalfClamped(), X.clamp(0.1, 0.4)
    near, far = (diagnose(model, x, Y, Threat(Linf(eps))).dead_pixels for eps in (0.1, 0.9))
    assert near == 0.0 and far == pytest.approx(0.25)
    with torch.no_grad():
        model.weight[:, 16:32] = 0
    assert diagnose(model, x, Y, Threat(Linf(0.9))).dead_pixels == 0.0


class Barred(Around):
    """A dead zone at the input: pixels below 0.3 change nothing until they reach it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(DeadZone(0.3)(x))


@pytest.mark.parametrize(("eps", "severity"), [(0.25, "pass"), (0.9, "fail")])
def test_a_dead_zone_fails_only_once_the_budget_leaves_it(eps: float, severity: str) -> None:
    x = torch.where(X < 0.7, 0.01, X)
    share = diagnose(Barred(), x, Y, Threat(Linf(eps))).dead_pixels
    assert share is not None and dead_pixels_check(share).severity == severity
    assert (share == 0) == (eps < 0.3)


def test_pixels_in_8_bits_are_not_called_rounded() -> None:
    class Fine(planted.Rounded):
        levels = 255

    class Bits(planted.Rounded):
        levels = 3

    threat = Threat(Linf(8 / 255))
    assert measured(Fine(), threat).unmoved_inputs == 0.0
    assert measured(Bits(), threat).unmoved_inputs > 0.8  # type: ignore[operator]


def test_randomness_is_told_from_memory() -> None:
    noisy, remembering = measured(planted.Noisy()), measured(planted.Remembering())
    assert noisy.randomness > 1e-2
    assert noisy.carried_state == 0.0
    assert remembering.carried_state > 1e-2
    assert remembering.randomness == 0.0


def test_numbers_drawn_outside_torch_are_randomness_too() -> None:
    class Drawing(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + float(numpy.random.rand()) + random.random()  # noqa: NPY002

    found = measured(Drawing())
    assert found.randomness > 1e-2
    assert found.carried_state == 0.0


def test_a_model_for_one_batch_size_depends_on_it() -> None:
    class Fixed(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.zeros(len(X), 1)

    assert measured(Fixed()).batch_classes == 1.0


def test_dropout_and_normalisation_may_differ_in_training() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), Linear())
    found = measured(model)
    assert found.training_logits == found.training_gradients == 0.0

    class Functional(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.5, self.training))

    assert measured(Functional()).training_logits is None  # random in training: nothing to compare


def test_without_a_gradient_what_needs_one_is_left_out() -> None:
    found = measured(planted.Detached())
    assert not found.has_gradient
    assert found.zero_gradients is found.saturated_loss is found.fidelity is found.dead_pixels is None
    assert found.changed_without_budget == found.carried_state == 0.0


@pytest.mark.parametrize(
    "threat", [Threat(L2(1.0)), Threat(L1(4.0)), replace(THREAT, domain=None), replace(THREAT, per_step=True)], ids=str
)
def test_every_threat_can_be_probed(threat: Threat) -> None:
    found = measured(Linear(), threat)
    assert found.fidelity == 1.0
    assert found.changed_without_budget == 0.0


def test_a_threat_without_budget_leaves_fidelity_out() -> None:
    found = measured(Linear(), THREAT.with_eps(0.0))
    assert found.fidelity is found.unmoved_inputs is None


def test_a_plain_function_can_be_probed() -> None:
    model = Linear().requires_grad_(False)
    found = diagnose(lambda x: model(x), X, Y, THREAT)
    assert found.fidelity == 1.0
    assert found.training_logits is found.unmoved_inputs is None


@pytest.mark.parametrize("make", [planted.ordinary, planted.adapting, planted.Noisy, planted.CentredByBatch])
def test_probing_leaves_no_trace(make: type[Around]) -> None:
    model = make()
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    modes = [module.training for module in model.modules()]
    weights = [value.clone() for value in model.state_dict().values()]
    before = torch.get_rng_state(), repr(numpy.random.get_state()), random.getstate()  # noqa: NPY002
    with count_passes() as passes:
        inspect_network(model, X)
        measured(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(*pair) for pair in zip(weights, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(numpy.random.get_state()) == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]
    assert passes.forward == passes.backward == 0


@pytest.mark.parametrize("make", [planted.ordinary, planted.spiking, planted.Noisy])
def test_the_same_seed_gives_the_same_figures(make: type[Around]) -> None:
    torch.manual_seed(1)
    first = repr(measured(make()))
    torch.manual_seed(2)
    assert repr(measured(make())) == first


def test_networks_are_told_apart() -> None:
    lif, adapting = inspect_network(planted.spiking(), X), inspect_network(planted.adapting(), X)
    assert (lif.spiking, lif.layers, lif.adaptive) == ("hosnn", 2, 0)
    assert (adapting.spiking, adapting.layers, adapting.adaptive) == ("hosnn", 2, 2)
    assert adapting.parameters > lif.parameters == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 4 + 4
    assert inspect_network(planted.ForeignSpikes(), X).spiking == "foreign"
    assert inspect_network(planted.ordinary(), X).spiking == "none"
    assert inspect_network(planted.spiking().outputs, X).spiking == "unknown"


def test_layers_that_no_longer_adapt_are_not_counted_as_adapting() -> None:
    """What is aimed at homeostasis has nothing to aim at in a twin with k = 0."""
    found = inspect_network(without_adaptation(planted.adapting()), X)
    assert (found.spiking, found.layers, found.adaptive) == ("hosnn", 2, 0)
    half = planted.adapting()
    first = next(layer for layer in half.modules() if isinstance(layer, TALIF))
    with torch.no_grad():
        first.adaptation.zero_()
    assert inspect_network(half, X).adaptive == 1


class Loss(Linear):
    """Another result in train mode, as detection models have."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return (logits, logits.sum()) if self.training else logits  # type: ignore[return-value]


class Teaching(Linear):
    """Cannot be asked in train mode without labels."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.training and y is None:
            raise KeyError("labels")
        return super().forward(x)


@pytest.mark.parametrize("make", [Loss, Teaching])
def test_a_model_that_gives_no_logits_in_train_mode_is_diagnosed_all_the_same(make: type[Linear]) -> None:
    found, plain = asdict(measured(make().eval())), asdict(measured(Linear().eval()))
    for name in ("training_logits", "training_gradients"):
        assert math.isnan(found.pop(name)) and plain.pop(name) == 0
    assert found == plain
    check = train_and_eval_mode(math.nan, math.nan, 32)
    assert check.severity == "warn" and "could not be measured" in check.figure


def test_gradient_and_randomness_are_seen_at_a_glance() -> None:
    assert inspect_network(planted.ordinary(), X).gradient
    assert not inspect_network(planted.ordinary(), X).random
    assert not inspect_network(planted.Detached(), X).gradient
    assert inspect_network(planted.Noisy(), X).random


def test_zeros_and_ones_that_came_in_are_not_spikes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Identity(), Linear())
    assert inspect_network(model, (X > 0.5).float()).spiking == "none"


def test_spikes_beside_a_state_are_seen() -> None:
    class WithState(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return (x > 0.5).to(x.dtype), x

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons, self.readout = WithState(), Linear()

        def forward(self, x: Tensor) -> Tensor:
            spikes, membrane = self.neurons(x)
            return self.readout(spikes + membrane - membrane.detach())  # type: ignore[no-any-return]

    assert inspect_network(First(), X).spiking == "foreign"


def test_our_layers_are_ours_even_beside_foreign_ones() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ours, self.theirs = LIF(), planted.ForeignSpikes()

        def forward(self, x: Tensor) -> Tensor:
            return self.theirs(x + self.ours(x[None]).mean(0))  # type: ignore[no-any-return]

    both = inspect_network(Both(), X)
    assert (both.spiking, both.evidence) == ("hosnn", "Heaviside emits spikes")
    for ours in (planted.spiking(), planted.adapting()):
        assert inspect_network(ours, X).evidence == ""
