"""What models give, and what they compute in: bounded scores are named, anything below float32 is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError, HosnnError, ShapeError
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.builtin import PROTOCOLS
from hosnn.protocols.protocol import AttackKind, Protocol
from hosnn.results.check import Check
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.losses import Loss, cross_entropy, margin, misclassified
from hosnn.robustness.model import Model, scores
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from tests.checks import planted
from tests.checks.planted import Around
from tests.checks.test_planted_failures import CHECKED

THREAT = Threat(Linf(0.05))
X, Y = planted.images(16)


# below float32


class Attacked(Exception):
    """An attack was reached."""


class Unreachable(PGD):
    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        raise Attacked


PLAN = replace(CHECKED, threat=THREAT, attacks=(attack_spec("PGD", Unreachable(THREAT)),))


class HalfStatistics(Around):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - self.centre)  # type: ignore[operator]


class Casting(Around):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.half().float())


class UnderAutocast(Around):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


def a_function(x: Tensor) -> Tensor:
    return planted.ordinary()(x).bfloat16().float()  # type: ignore[no-any-return]


def half_source() -> Protocol:
    transfer = attack_spec("transfer", Transfer(planted.HalvedInside(), Unreachable(THREAT)), kind=AttackKind.TRANSFER)
    return replace(PLAN, attacks=(transfer,))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "images of 16 bits": (lambda: evaluate(planted.ordinary(), (X.half(), Y), PLAN), "images are torch.float16"),
    "images in bfloat16": (lambda: evaluate(planted.ordinary(), (X.bfloat16(), Y), PLAN), "images are torch.bfloat16"),
    "half weights": (lambda: evaluate(planted.ordinary().half(), (X, Y), PLAN), "weight is torch.float16"),
    "bfloat16 weights": (lambda: evaluate(planted.ordinary().bfloat16(), (X, Y), PLAN), "weight is torch.bfloat16"),
    "a half buffer": (lambda: evaluate(HalfStatistics(), (X, Y), PLAN), "centre is torch.float16"),
    "half logits": (lambda: evaluate(planted.Halved(), (X, Y), PLAN), "gives torch.float16"),
    "bfloat16 before the logits": (lambda: evaluate(planted.HalvedInside(), (X, Y), PLAN), "gives torch.bfloat16"),
    "a cast of the images": (lambda: evaluate(Casting(), (X, Y), PLAN), "gives torch.float16"),
    "autocast": (lambda: evaluate(UnderAutocast(), (X, Y), PLAN), "gives torch.bfloat16"),
    "a plain function": (lambda: evaluate(a_function, (X, Y), PLAN), "gives torch.bfloat16"),
    "a source of transfer": (lambda: evaluate(planted.ordinary(), (X, Y), half_source()), "gives torch.bfloat16"),
}


@pytest.mark.parametrize(("act", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_below_float32_is_refused_by_name_before_any_attack(act: Callable[[], object], says: str) -> None:
    with pytest.raises(HosnnError, match=f"{says}.*float32") as refusal:
        act()
    assert isinstance(refusal.value, (ShapeError, ConfigError))


@pytest.mark.parametrize("make", [planted.ordinary, planted.spiking, planted.adapting, planted.ForeignSpikes])
def test_networks_in_float32_and_float64_are_attacked(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(Attacked):
        evaluate(make(), (X, Y), PLAN, threads=0)


def test_looking_changes_no_random_numbers() -> None:
    plan = replace(PLAN, attacks=())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    evaluate(planted.Noisy(), (X, Y), plan)
    assert torch.equal(torch.rand(1), expected)


# bounded scores


def range_check(model: nn.Module, protocol: Protocol) -> Check:
    (check,) = (check for check in evaluate(model, (X, Y), protocol).checks if check.name == "range of scores")
    return check


BOUNDED = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "softmax": nn.Softmax(1), "hard": nn.Hardtanh()}


@pytest.mark.parametrize("function", BOUNDED.values(), ids=BOUNDED)
def test_bounded_scores_are_named(function: nn.Module) -> None:
    check = range_check(planted.bounded(function), CHECKED)
    assert check.severity == "warn" and "nn.Sigmoid or nn.Tanh" in check.meaning


def test_scores_of_small_scale_are_as_bounded_ones() -> None:
    class Quiet(Around):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 100

    assert range_check(Quiet(), CHECKED).severity == "warn"


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_cross_entropy_flatters_bounded_scores(name: str) -> None:
    """What the check is for: PGD on the margin breaks images of the same network that PGD on cross-entropy leaves."""
    x, y = planted.images(64)
    network, rng, threat = planted.bounded(BOUNDED[name]), SampleRandom(0, torch.arange(64)), Threat(Linf(0.1))

    def broken(loss: Loss) -> int:
        return int(misclassified(scores(network, PGD(threat, loss=loss)(network, x, y, rng)), y).sum())

    assert broken(margin) > broken(cross_entropy) + 64 / 10


@pytest.mark.parametrize("make", [planted.ordinary, planted.spiking, planted.adapting])
def test_honest_scores_are_left_in_peace(make: Callable[[], nn.Module]) -> None:
    assert range_check(make(), CHECKED).severity == "pass"


@pytest.mark.parametrize("name", ["quick", "standard"])
def test_protocols_with_losses_of_no_scale_pass(name: str) -> None:
    plan = PROTOCOLS[name](THREAT)
    attacks = tuple(spec for spec in plan.attacks if spec.role is not None)[:1]
    short = replace(plan, search=None, panels=(), model_check_samples=8, attacks=attacks).resized(8)
    check = range_check(planted.bounded(nn.Sigmoid()), short)
    assert check.severity == "pass" and "scale-invariant" in check.figure
