"""Every known way to fake robustness is caught by the check meant for it, and honest networks are left in peace."""

from collections.abc import Callable
from functools import cache

import pytest
from torch import nn

from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.protocol import AttackKind, AttackSpec, BestEstimator, PanelPlan, Protocol, Search
from hosnn.results.check import Check
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Linf, Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Rectangle
from tests.checks import planted

IMAGES = planted.images(32)
THREAT = Threat(Linf(0.12))

LOOKED_AT = Protocol("look", "no attacks", THREAT, (), None, probes=32)


def _entry(
    name: str, attack: Attack, threat: Threat = THREAT, kind: AttackKind = AttackKind.WHITE_BOX, steps: int = 0
) -> AttackSpec:
    return AttackSpec(
        name, attack, threat, kind, None if kind is not AttackKind.WHITE_BOX else BestEstimator(), steps=steps
    )


ATTACKED = Protocol(
    "attack",
    "a small version of everything",
    THREAT,
    (
        _entry("APGD-CE", APGD(THREAT, 25)),
        _entry("APGD-T", APGDTargeted(THREAT, 20, 3)),
        _entry("Square", Square(THREAT, 200), kind=AttackKind.QUERIES),
    ),
    samples=None,
    cascade=True,
    search=Search(PGD(THREAT, 5), (bptt(), bptt(Rectangle(0.5))), 32),
    panels=(
        PanelPlan(
            "eps",
            tuple(_entry(f"PGD {eps}", PGD(at), at) for eps in (0.03, 0.12, 1.0) for at in [THREAT.with_eps(eps)]),
            32,
        ),
        PanelPlan("steps", tuple(_entry(f"APGD {n}", APGD(THREAT, n), steps=n) for n in (10, 20, 40)), 32),
        PanelPlan(
            "controls",
            (
                _entry("noise", Noise(THREAT), kind=AttackKind.CONTROL),
                _entry("PGD-20", PGD(THREAT)),
                _entry("PGD-20, 5 restarts", PGD(THREAT, restarts=5)),
                _entry("PGD-20, last point", PGD(THREAT, keep_best=False)),
            ),
            32,
        ),
    ),
    probes=32,
)

MEANT: list[tuple[Callable[[], nn.Module], str, Protocol]] = [
    (planted.Detached, "gradient", LOOKED_AT),
    (planted.narrow_sigmoid, "zero gradients", LOOKED_AT),
    (planted.narrow_rectangle, "zero gradients", LOOKED_AT),
    (planted.Rounded, "zero gradients", LOOKED_AT),
    (planted.Rounded, "rounded input", LOOKED_AT),
    (planted.RoundedStraightThrough, "rounded input", LOOKED_AT),
    (planted.too_narrow, "gradient fidelity", LOOKED_AT),
    (planted.Misleading, "gradient fidelity", LOOKED_AT),
    (planted.Loud, "saturated loss", LOOKED_AT),
    (planted.Loud, "saturated softmax", LOOKED_AT),
    (planted.Clipped, "dead pixels", LOOKED_AT),
    (planted.Noisy, "randomness", LOOKED_AT),
    (planted.Remembering, "state between calls", LOOKED_AT),
    (planted.CentredByBatch, "batch", LOOKED_AT),
    (planted.adapting_in_eval, "train and eval mode", LOOKED_AT),
    (planted.surrogate_in_training, "train and eval mode", LOOKED_AT),
    (planted.Halved, "coarse logits", LOOKED_AT),
    (planted.HalvedInside, "coarse logits", LOOKED_AT),
    (planted.Quantised, "coarse logits", LOOKED_AT),
    (planted.Indifferent, "ties", LOOKED_AT),
    (planted.ForeignSpikes, "gradient estimators", LOOKED_AT),
    (planted.Misleading, "queries and transfer", ATTACKED),
    (planted.Misleading, "random noise", ATTACKED),
    (planted.Rounded, "unbounded attack", ATTACKED),
]


@cache
def raised(network: Callable[[], nn.Module], protocol: Protocol) -> dict[str, Check]:
    """What is not passed, by name."""
    checks = evaluate(network(), IMAGES, protocol).checks
    return {check.name: check for check in checks if check.severity != "pass"}


@pytest.mark.parametrize(
    ("plant", "name", "protocol"), MEANT, ids=[f"{plant.__name__}: {name}" for plant, name, _ in MEANT]
)
def test_the_check_meant_for_it_catches_it(plant: Callable[[], nn.Module], name: str, protocol: Protocol) -> None:
    assert name in raised(plant, protocol)


def test_an_ordinary_network_raises_nothing() -> None:
    assert set(raised(planted.ordinary, ATTACKED)) == {"sample size"}  # 32 images are few


@pytest.mark.parametrize("network", [planted.spiking, planted.adapting])
def test_an_honest_spiking_network_does_not_fail(network: Callable[[], nn.Module]) -> None:
    assert not [check for check in raised(network, ATTACKED).values() if check.severity == "fail"]


def test_a_gradient_that_attacks_replaced_is_a_warning() -> None:
    """A surrogate too narrow to attack through matters less once the search has found a better one."""
    assert raised(planted.narrow_rectangle, LOOKED_AT)["zero gradients"].severity == "fail"
    assert raised(planted.narrow_rectangle, ATTACKED)["zero gradients"].severity == "warn"


def test_a_gradient_that_no_estimator_restores_stays_a_failure() -> None:
    assert raised(planted.surrogate_in_training, ATTACKED)["zero gradients"].severity == "fail"
