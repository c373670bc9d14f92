"""Every known way to fake robustness is caught by the check meant for it, and honest networks are left in peace."""

from collections.abc import Callable
from functools import cache

import pytest
from torch import nn

from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.protocol import AttackKind, AttackSpec, BestEstimator, EstimatorSearch, PanelPlan, Protocol
from hosnn.results.check import Check
from hosnn.results.roles import Role
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Rectangle
from tests.checks import planted

IMAGES = planted.images(32)
THREAT = Threat(Linf(0.12))

CHECKED = Protocol(
    name="look", description="no attacks", threat=THREAT, attacks=(), samples=None, model_check_samples=32
)


def _spec(
    name: str,
    attack: Attack,
    threat: Threat = THREAT,
    kind: AttackKind = AttackKind.WHITE_BOX,
    steps: int = 0,
    role: Role | None = None,
) -> AttackSpec:
    estimator = BestEstimator() if kind is AttackKind.WHITE_BOX else None
    return AttackSpec(name=name, attack=attack, threat=threat, kind=kind, estimator=estimator, steps=steps, role=role)


ATTACKED = Protocol(
    name="attack",
    description="a small version of everything",
    threat=THREAT,
    attacks=(
        _spec("APGD-CE", APGD(THREAT, 25)),
        _spec("APGD-T", APGDTargeted(THREAT, 20, 3), role=Role.SCALE_FREE_LOSS),
        _spec("Square", Square(THREAT, 200), kind=AttackKind.QUERIES),
    ),
    samples=None,
    cascade=True,
    search=EstimatorSearch(PGD(THREAT, 5), (bptt(), bptt(Rectangle(0.5))), 32),
    panels=(
        PanelPlan(
            "eps",
            tuple(_spec(f"PGD {eps}", PGD(at), at) for eps in (0.03, 0.12, 1.0) for at in [THREAT.with_eps(eps)]),
            32,
        ),
        PanelPlan("steps", tuple(_spec(f"APGD {n}", APGD(THREAT, n), steps=n) for n in (10, 20, 40)), 32),
        PanelPlan(
            "controls",
            (
                _spec("noise", Noise(THREAT), kind=AttackKind.CONTROL, role=Role.NOISE),
                _spec("PGD-20", PGD(THREAT), role=Role.REFERENCE),
                _spec("FGSM", fgsm(THREAT), role=Role.SINGLE_STEP),
                _spec("PGD-20, 5 restarts", PGD(THREAT, restarts=5), role=Role.MORE_RESTARTS),
                _spec("PGD-20, last point", PGD(THREAT, keep_best=False), role=Role.LAST_POINT),
            ),
            32,
        ),
    ),
    model_check_samples=32,
)

MEANT: list[tuple[Callable[[], nn.Module], str, Protocol]] = [
    (planted.Detached, "gradient", CHECKED),
    (planted.narrow_sigmoid, "zero gradients", CHECKED),
    (planted.narrow_rectangle, "zero gradients", CHECKED),
    (planted.Rounded, "zero gradients", CHECKED),
    (planted.Rounded, "rounded input", CHECKED),
    (planted.RoundedStraightThrough, "rounded input", CHECKED),
    (planted.too_narrow, "gradient fidelity", CHECKED),
    (planted.Misleading, "gradient fidelity", CHECKED),
    (planted.Loud, "saturated loss", CHECKED),
    (planted.Loud, "saturated softmax", CHECKED),
    (planted.Clipped, "dead pixels", CHECKED),
    (planted.Noisy, "randomness", CHECKED),
    (planted.Remembering, "state between calls", CHECKED),
    (planted.CentredByBatch, "batch", CHECKED),
    (planted.adapting_in_eval, "train and eval mode", CHECKED),
    (planted.surrogate_in_training, "train and eval mode", CHECKED),
    (planted.HalvedUnseen, "coarse logits", CHECKED),
    (planted.Quantised, "coarse logits", CHECKED),
    (planted.Indifferent, "ties", CHECKED),
    (planted.ForeignSpikes, "gradient estimators", CHECKED),
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
    assert raised(planted.narrow_rectangle, CHECKED)["zero gradients"].severity == "fail"
    assert raised(planted.narrow_rectangle, ATTACKED)["zero gradients"].severity == "warn"


def test_checks_that_need_a_gradient_say_that_there_is_none() -> None:
    checks = raised(planted.Detached, CHECKED)
    for name in ("zero gradients", "gradient fidelity", "saturated loss", "dead pixels"):
        assert checks[name].figure == "not run: the model has no gradient"


def test_checks_that_need_equal_answers_say_that_there_are_none() -> None:
    checks = raised(planted.Noisy, CHECKED)
    for name in ("batch", "train and eval mode"):
        assert checks[name].figure == "not run: the model answers the same image differently"


def test_checks_of_what_is_inside_a_model_say_that_a_function_cannot_be_looked_into() -> None:
    checks = {check.name: check for check in evaluate(lambda x: planted.ordinary()(x), IMAGES, CHECKED).checks}
    for name in ("rounded input", "train and eval mode"):
        assert checks[name].severity == "warn" and "plain function" in checks[name].figure


def test_a_gradient_that_no_estimator_restores_stays_a_failure() -> None:
    assert raised(planted.surrogate_in_training, ATTACKED)["zero gradients"].severity == "fail"
