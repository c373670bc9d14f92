"""Any attack runs through any kind of estimator, and keeps its samples apart while it does."""

import pytest
import torch

from hosnn.estimators import (
    BPTR,
    AdaptiveSharpness,
    AgainstHomeostasis,
    Estimator,
    SignatureDeviation,
    Through,
    estimator_name,
)
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import EOT, Worst
from hosnn.robustness.fab import FAB
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.losses import targeted_margin
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD, mi_fgsm
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from tests.covering import each_value
from tests.estimators.networks import adaptive, images, plain

THREAT = Threat(Linf(0.2))
WITH_LOSS: dict[str, Attack] = {
    "PGD with restarts": PGD(THREAT, steps=2, restarts=2),
    "MI-FGSM": mi_fgsm(THREAT, steps=3),
    "APGD": APGD(THREAT, steps=4),
    "APGD-T": APGDTargeted(THREAT, steps=3, loss=targeted_margin),
    "SA-PGD": SAPGD(THREAT, steps=4),
    "EOT": EOT(PGD(THREAT, steps=2), 2),
    "worst": Worst((PGD(THREAT, steps=2), APGD(THREAT, steps=3))),
}
WITHOUT: dict[str, Attack] = {
    "FAB": FAB(THREAT, steps=2),
    "Square": Square(THREAT, queries=8),
    "HopSkipJump": HopSkipJump(THREAT, queries=20, probes=5),
}
ATTACKS = WITH_LOSS | WITHOUT


STATELESS = each_value(tuple(ATTACKS), (bptt(), BPTR()))
STATEFUL = [(name, AdaptiveSharpness()) for name in ATTACKS]


@pytest.mark.parametrize(
    ("name", "estimator"),
    [*STATELESS, *STATEFUL],
    ids=lambda value: value if isinstance(value, str) else estimator_name(value),
)
def test_any_attack_runs_through_any_estimator(name: str, estimator: Estimator) -> None:
    attack, network, x = ATTACKS[name], plain(), images(8)
    with torch.no_grad():
        y = network(x).argmax(1)
    rng, chosen = SampleRandom(0, torch.arange(8)), torch.tensor([7, 2, 4])
    whole = Through(estimator, attack)(network, x, y, rng)
    assert THREAT.allows(whole, x).all()
    alone = Through(estimator, attack)(network, x[chosen], y[chosen], rng.subset(chosen))
    torch.testing.assert_close(alone, whole[chosen], rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", WITH_LOSS.values(), ids=WITH_LOSS)
def test_any_attack_with_a_loss_can_be_aimed_at_homeostasis(attack: Attack) -> None:
    network, x = adaptive(), images(10)
    with torch.no_grad():
        y = network(x).argmax(1)
    rng = SampleRandom(0, torch.arange(10))
    found = AgainstHomeostasis(attack, SignatureDeviation(), 10.0)(network, x, y, rng)
    assert THREAT.allows(found, x).all() and not torch.equal(found, attack(network, x, y, rng))
