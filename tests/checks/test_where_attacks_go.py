"""Models that are honest about clean images and hide elsewhere are caught: inside the ball, in the passes of attacks, in
copies on threads."""

from collections.abc import Callable

import pytest
from torch import nn

from hosnn.checks.diagnosis import diagnose
from hosnn.protocols.protocol import Protocol
from hosnn.robustness.threats import Linf, Threat
from tests.checks import planted, planted_inside
from tests.checks.test_planted_failures import ATTACKED, CHECKED, THREAT, raised

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
    (planted_inside.ResetByRegistry, "copies", CHECKED, "fail"),
    (planted_inside.SharedMembrane, "copies", CHECKED, "fail"),
    (planted_inside.RoundedBehindLinear, "rounded input", CHECKED, "warn"),
]


@pytest.mark.parametrize(
    ("plant", "name", "protocol", "severity"), MEANT, ids=[f"{plant.__name__}: {name}" for plant, name, *_ in MEANT]
)
def test_the_check_meant_for_it_catches_it(
    plant: Callable[[], nn.Module], name: str, protocol: Protocol, severity: str
) -> None:
    assert raised(plant, protocol)[name].severity == severity
