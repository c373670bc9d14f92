"""Models that are honest about clean images and hide where attacks go are caught; ordinary ones are left in peace."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.checks.ball_probe import FEWEST_POINTS
from hosnn.checks.copies import compare_copy
from hosnn.checks.diagnosis import Diagnosis, diagnose
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.protocol import Protocol
from hosnn.results.roles import Role
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.threats import Threat
from tests.checks import planted, planted_inside
from tests.checks.planted import Around
from tests.checks.planted_inside import attacked
from tests.checks.test_planted_failures import ATTACKED, CHECKED, IMAGES, raised

THREAT = Threat(Linf(0.1))

MEANT: list[tuple[Callable[[], nn.Module], str, Protocol, str]] = [
    (planted_inside.HidesInside, "fidelity in the ball", CHECKED, "fail"),
    (planted_inside.HidesInside, "single step", ATTACKED, "fail"),
    (planted_inside.k_winners, "fidelity in the ball", CHECKED, "fail"),
    (planted_inside.ConstantInside, "zero gradients in the ball", CHECKED, "fail"),
    (planted_inside.DeniesClaims, "claimed successes", ATTACKED, "fail"),
    (planted_inside.DeniesClaims, "with and without gradient", CHECKED, "fail"),
    (planted_inside.QuantisedWithoutGradient, "with and without gradient", CHECKED, "fail"),
    (planted_inside.OneHot, "coarse logits", CHECKED, "fail"),
    (planted_inside.KeepsStateForEqualShapes, "state between calls", CHECKED, "fail"),
    (planted_inside.ResetByRegistry, "copies", CHECKED, "warn"),
    (planted_inside.RoundedBehindLinear, "rounded input", CHECKED, "warn"),
]


@pytest.mark.parametrize(
    ("plant", "name", "protocol", "severity"), MEANT, ids=[f"{plant.__name__}: {name}" for plant, name, *_ in MEANT]
)
def test_the_check_meant_for_it_catches_it(
    plant: Callable[[], nn.Module], name: str, protocol: Protocol, severity: str
) -> None:
    assert raised(plant, protocol)[name].severity == severity


ORDINARY: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "MLP": (4, planted_inside.perceptron),
    "dropout": (4, lambda classes: planted_inside.perceptron(classes, nn.Dropout(0.3))),
    "BatchNorm": (4, lambda classes: planted_inside.perceptron(classes, nn.BatchNorm1d(64))),
    "2 classes": (2, planted_inside.perceptron),
    "3 classes": (3, planted_inside.perceptron),
    "100 classes": (100, planted_inside.perceptron),
}
"""The number of classes, and a network for them; CNN, LIF and TA-LIF are in test_planted_failures."""

CONTROLS = next(panel for panel in ATTACKED.panels if panel.name == "controls")

ATTACKED_ONCE = replace(
    ATTACKED,
    attacks=(*ATTACKED.attacks[:1], *(spec for spec in CONTROLS.attacks if spec.role is Role.MORE_RESTARTS)),
    panels=(CONTROLS,),
    model_check_samples=100,
)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_networks_raise_nothing_that_fails(name: str) -> None:
    classes, make = ORDINARY[name]
    result = evaluate(make(classes), planted_inside.patterns(max(32, classes), classes), ATTACKED_ONCE)
    assert result.clean_accuracy > 0.9
    assert not [check for check in result.checks if check.severity == "fail"]


def measured(model: nn.Module, threat: Threat = THREAT, count: int = 32) -> Diagnosis:
    return diagnose(model, *planted.images(count), threat)


class Turned(Around):
    """The gradient reversed for attacked images."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.where(attacked(x), 2 * logits.detach() - logits, logits)


class Disconnected(Around):
    """No path from the scores to the input once all images are attacked."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach() if bool(attacked(x).all()) else x)


@pytest.mark.parametrize("threat", [THREAT, Threat(L2(1.0)), Threat(L1(4.0)), replace(THREAT, domain=None)], ids=str)
def test_an_honest_gradient_is_faithful_in_every_ball(threat: Threat) -> None:
    probe = measured(planted.ordinary(), threat).inside
    assert probe is not None and probe.fidelity is not None
    assert probe.fidelity > 0.99
    assert probe.zero_gradients == probe.other_logits == 0.0


def test_a_gradient_reversed_in_the_ball_only_is_seen_there_only() -> None:
    found = measured(Turned())
    assert found.fidelity == 1.0
    assert found.inside is not None and found.inside.fidelity is not None
    assert found.inside.fidelity < 0.5


def test_a_gradient_cut_off_in_the_ball_is_zero_there() -> None:
    found = measured(Disconnected())
    assert found.zero_gradients == 0.0
    assert found.inside is not None and found.inside.zero_gradients == 1.0


def test_without_budget_or_correct_points_the_ball_is_left_out() -> None:
    class Wrong(Around):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).roll(1, 1)

    for model, threat, reason in (
        (planted.ordinary(), THREAT.with_eps(0.0), "no budget"),
        (Wrong(), Threat(Linf(0.01)), "points are classified correctly"),
    ):
        probe = measured(model, threat).inside
        assert probe is not None and probe.correct < FEWEST_POINTS
        assert probe.fidelity is probe.zero_gradients is None
        checks = {check.name: check for check in evaluate(model, IMAGES, replace(CHECKED, threat=threat)).checks}
        for name in ("zero gradients in the ball", "fidelity in the ball"):
            assert checks[name].severity == "warn" and reason in checks[name].figure


def test_a_hidden_gradient_that_attacks_replaced_is_a_warning() -> None:
    assert raised(planted.narrow_rectangle, CHECKED)["fidelity in the ball"].severity == "fail"
    assert raised(planted.narrow_rectangle, ATTACKED)["fidelity in the ball"].severity == "warn"


def test_state_is_seen_although_blocks_differ_in_size() -> None:
    """64 images are blocks of 50 and 14: a model that starts anew with each shape seems to keep nothing."""
    assert measured(planted_inside.KeepsStateForEqualShapes(), count=64).carried_state > 1e-2


def test_what_threads_would_share_is_not_used_on_threads() -> None:
    x, _ = IMAGES
    assert compare_copy(planted_inside.SharedMembrane(), x) == "shared"
    for make in (planted.ordinary, planted.spiking, planted.adapting, planted.Noisy):
        assert compare_copy(make(), x) == "equal"


def test_pooled_and_resting_activations_are_not_called_rounded() -> None:
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.Hardtanh(0, 0.5), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, planted.CLASSES))
    found = measured(model)
    assert found.unmoved_inputs == 0.0
    assert found.unmoved_later is not None and found.unmoved_later < 0.01
