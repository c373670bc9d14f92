"""The binarization test: the known point is adversarial, strong attacks find it, and crippled ones do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.checks import attack_checks
from hosnn.checks.binarization_test import BinarizationTest, run_binarization_test
from hosnn.checks.binarized_model import INNER_RADIUS, binarize, features_of, on_surface, separate
from hosnn.checks.run_checks import all_checks
from hosnn.estimators import AdaptiveSharpness, OnFrames
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.builtin import full, standard
from hosnn.protocols.protocol import AttackKind, AttackSpec, Protocol
from hosnn.results.check import Severity
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD
from hosnn.robustness.balls import L2, Linf
from hosnn.robustness.model import Attack, count_passes, scores, subset
from hosnn.robustness.pgd import PGD, at_clean
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from tests.checks import planted

LINF, LENGTH = Threat(Linf(0.05)), Threat(L2(0.5))
THREATS = pytest.mark.parametrize("threat", [LINF, LENGTH], ids=str)
X, Y = planted.images(24)
RNG = SampleRandom(0, torch.arange(len(X)))


class Linear(nn.Module):
    """Ten classes, logits = W x: an attack along w · W is the best there is."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 64, generator=rng))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class Detached(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Flat(Linear):
    """A gradient that is there and zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach() + 0 * x.flatten(1)[:, :1]


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * 0


def result_of(model: nn.Module, attack: Attack, threat: Threat = LINF, **settings: Any) -> BinarizationTest:
    found = run_binarization_test(
        model, [AttackSpec(name="attack", attack=attack, threat=threat, **settings)], X, threat, RNG
    )
    assert found is not None
    return found


def severity(found: BinarizationTest) -> Severity:
    return attack_checks.binarization_test(found.broken, found.broken_by_chance, found.separable, found.images).severity


@THREATS
def test_the_known_point_is_adversarial_inside_the_threat_and_hardly_any_other_is(threat: Threat) -> None:
    model, boundary, built = binarize(Linear(), X, threat, RNG)
    assert built.float().mean() > 0.9
    model, x, boundary = model.subset(built), X[built], boundary[built]
    assert threat.allows(boundary, x).all()
    torch.testing.assert_close(threat.ball.size(boundary - x), torch.full((len(x),), threat.ball.eps))
    assert scores(model, boundary).argmax(1).all()
    assert not scores(model, x).argmax(1).any()
    smaller, rng = threat.scaled(INNER_RADIUS), RNG.subset(built).fold("other")
    for number in range(20):
        inside = smaller.project(x + smaller.ball.sample(x, rng.fold(number)), x)
        assert scores(model, inside).argmax(1).float().mean() < 0.15


@THREATS
def test_a_strong_attack_on_a_linear_model_passes_and_chance_does_not(threat: Threat) -> None:
    found = result_of(Linear(), APGD(threat, 20), threat)
    assert found.images == len(X) and found.separable > 0.9 * len(X)
    assert found.broken == found.separable
    assert found.broken_by_chance < 0.3 * found.separable
    assert severity(found) == "pass"


@THREATS
def test_an_attack_of_one_tiny_step_fails(threat: Threat) -> None:
    found = result_of(Linear(), PGD(threat, steps=1, step_size=0.01, start=at_clean), threat)
    assert (found.broken, severity(found)) == (0, "fail")


@pytest.mark.parametrize("model", [Detached, Flat])
def test_a_model_without_a_gradient_fails_whatever_the_steps(model: Callable[[], nn.Module]) -> None:
    found = result_of(model(), PGD(LINF, steps=10))
    assert found.separable > 0.9 * len(X)
    assert severity(found) == "fail"


def test_where_nothing_can_be_separated_nothing_is_claimed() -> None:
    found = result_of(Constant(), APGD(LINF, 5))
    assert found == BinarizationTest(images=len(X))
    check = attack_checks.binarization_test(0, 0, 0, len(X))
    assert check.severity == "warn" and f"{len(X)} of {len(X)}" in check.figure


def test_a_result_without_budget_or_fitting_attack_is_none() -> None:
    nothing = LINF.with_eps(0.0)
    strong = attack_spec("APGD", APGD(LINF))
    assert run_binarization_test(Linear(), [attack_spec("APGD", APGD(nothing))], X, nothing, RNG) is None
    for unfit in (replace(strong, classes=3), replace(strong, adaptive=True), replace(strong, kind=AttackKind.CONTROL)):
        assert run_binarization_test(Linear(), [unfit], X, LINF, RNG) is None


def test_queries_are_tested_where_there_is_no_gradient_attack() -> None:
    square = AttackSpec(name="Square", attack=Square(LINF, 100), threat=LINF, kind=AttackKind.QUERIES)
    blind = attack_spec("PGD", PGD(LINF, steps=1, step_size=0.01, start=at_clean))
    alone, beside = (
        run_binarization_test(Linear(), [square], X, LINF, RNG),
        run_binarization_test(Linear(), [blind, square], X, LINF, RNG),
    )
    assert alone is not None and alone.broken > 0.5 * alone.separable
    assert beside is not None and beside.broken == 0


def test_a_later_attack_is_shown_what_an_earlier_one_missed() -> None:
    weak = attack_spec("weak", PGD(LINF, steps=1, step_size=0.01, start=at_clean))
    both = run_binarization_test(Linear(), [weak, attack_spec("strong", APGD(LINF, 20))], X, LINF, RNG)
    assert both is not None and both.broken == both.separable > 0


def test_an_image_has_the_same_readout_in_any_company() -> None:
    together, boundary, built = binarize(Linear(), X, LINF, RNG)
    chosen = torch.tensor([17, 3, 8])
    alone, point, alone_built = binarize(Linear(), X[chosen], LINF, RNG.subset(chosen))
    assert torch.equal(built[chosen], alone_built)
    assert torch.equal(boundary[chosen], point)
    torch.testing.assert_close(subset(together, chosen)(X[chosen]), alone(X[chosen]), rtol=1e-3, atol=1e-4)


def test_it_repeats_and_depends_on_the_seed() -> None:
    first, again = (result_of(Linear(), PGD(LINF, steps=2)) for _ in range(2))
    assert first == again
    here, there = (binarize(Linear(), X, LINF, SampleRandom(seed, RNG.index))[1] for seed in (0, 1))
    assert not torch.equal(here, there)


def test_it_leaves_no_trace() -> None:
    model = planted.spiking().train()
    weights, state = [value.clone() for value in model.state_dict().values()], torch.get_rng_state()
    with count_passes() as passes:
        result_of(model, APGD(LINF, 3), estimator=bptt())
    assert passes.forward == 0 and torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(*pair) for pair in zip(weights, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("estimator", [bptt(), AdaptiveSharpness()], ids=["BPTT", "ASSG"])
def test_estimators_find_the_spiking_layers_inside(estimator: Any) -> None:
    """Through the network's own gradient, cut here, nothing is found."""
    network = planted.narrow_rectangle()
    blind = result_of(network, APGD(LINF, 20))
    seeing = result_of(network, APGD(LINF, 20), estimator=estimator)
    assert seeing.separable == blind.separable > 0.5 * len(X)
    assert seeing.broken > 0.8 * seeing.separable
    assert blind.broken < 0.5 * blind.separable


def test_the_readout_changes_scores_and_not_what_is_below() -> None:
    network = planted.spiking()
    model, _, built = binarize(network, X, LINF, RNG)
    seen: list[Tensor] = []
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad(), last.register_forward_pre_hook(lambda module, given: seen.append(given[0])):
        network(X)
    features = seen[0].view(network.steps, len(X), -1).mean(0)
    expected = ((features - model.centre) * model.weight).sum(1) + model.offset
    assert built.any()
    torch.testing.assert_close(model(X)[:, 1] - model(X)[:, 0], expected)


def test_scores_are_as_large_as_the_models_logits() -> None:
    """So that a loss which saturates on the model saturates here."""
    quiet, loud = Linear(), Linear()
    with torch.no_grad():
        loud.weight.mul_(1024)
    once, many = (binarize(model, X, LINF, RNG)[0](X) for model in (quiet, loud))
    torch.testing.assert_close(many, 1024 * once)
    logits = quiet(X)
    spread = once[:, 0] - once[:, 1]
    own = logits.amax(1) - logits.amin(1)
    assert (spread.abs() <= 1.01 * own).all() and spread.abs().median() > 0.2 * own.median()


def test_a_threat_per_step_is_tested_on_frames() -> None:
    threat = Threat(Linf(0.05), per_step=True)
    found = result_of(planted.spiking(), OnFrames(APGD(threat, 20)), threat, estimator=bptt())
    assert found.separable > 0.5 * len(X)
    assert found.broken > 0.8 * found.separable


def test_the_gap_is_that_to_the_nearest_point_of_the_hull() -> None:
    square = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    outer = torch.tensor([[3.0, 0.5], [2.0, 2.0], [0.2, 0.1]], dtype=torch.float64)
    direction, gap, reach = separate(square[:, None].expand(-1, 3, -1), outer)
    torch.testing.assert_close(gap[:2], torch.tensor([2.0, 2**0.5], dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(direction[1], torch.full((2,), 0.5**0.5, dtype=torch.float64), rtol=1e-3, atol=0)
    assert gap[2] <= 0
    assert (reach >= gap).all()


class Tokens(nn.Module):
    """A linear layer that sees [B, tokens, features], and one that is never used."""

    def __init__(self, unused: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 10)
        self.unused = nn.Linear(8, 8) if unused else None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, 0]).mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("unused", [False, True])
def test_layers_whose_input_is_not_understood_leave_the_logits(unused: bool) -> None:
    model = Tokens(unused)
    assert features_of(model, X) is model
    assert features_of(model.forward, X) == model.forward


def test_features_are_those_below_the_last_linear_layer() -> None:
    network = planted.ordinary()
    assert isinstance(network, nn.Sequential)
    torch.testing.assert_close(features_of(network, X)(X), network[:-1](X))


@THREATS
def test_surface_points_use_the_whole_budget_where_pixels_end(threat: Threat) -> None:
    x = torch.zeros_like(X)
    size = threat.ball.size(on_surface(threat, x, RNG) - x)
    assert threat.allows(on_surface(threat, x, RNG), x).all()
    torch.testing.assert_close(size, torch.full_like(size, threat.ball.eps))


@pytest.mark.parametrize(
    ("found", "by_chance", "samples", "expected"),
    [
        (50, 2, 50, "pass"),
        (48, 2, 50, "pass"),
        (47, 2, 50, "warn"),
        (30, 2, 50, "fail"),
        (45, 45, 50, "fail"),
        (50, 40, 50, "warn"),
        (5, 0, 5, "warn"),
        (0, 0, 0, "warn"),
    ],
)
def test_severity(found: int, by_chance: int, samples: int, expected: Severity) -> None:
    assert attack_checks.binarization_test(found, by_chance, samples, 50).severity == expected


def test_an_evaluation_reports_it_if_its_protocol_asks() -> None:
    attacks = (attack_spec("APGD", APGD(LINF, 20)),)
    asking = Protocol(name="test", description="", threat=LINF, attacks=attacks, samples=None, binarization_samples=12)
    checks = {check.name: check for check in evaluate(Linear(), (X, Y), asking).checks}
    assert checks["binarization test"].severity == "pass" and "of 12" in checks["binarization test"].figure
    silent = evaluate(Linear(), (X, Y), replace(asking, binarization_samples=0))
    assert "binarization test" not in {check.name for check in silent.checks}
    assert "binarization test" in {check.name for check in all_checks(silent, None, BinarizationTest(12, 12, 12, 0))}


def test_full_asks_for_it_and_others_keep_their_settings() -> None:
    assert full().binarization_samples > 0 and standard().binarization_samples == 0
    assert full().settings != replace(full(), binarization_samples=0).settings
