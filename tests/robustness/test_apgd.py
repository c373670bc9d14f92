"""Auto-PGD: closed forms on linear models, its schedule, and its strength on a small network."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import L1, L2, Ball, Linf
from hosnn.robustness.losses import (
    Loss,
    cross_entropy,
    dlr,
    margin,
    scaled_cross_entropy,
    targeted_cross_entropy,
    targeted_dlr,
    targeted_margin,
)
from hosnn.robustness.model import Attack, AveragedModel, Model, count_passes, input_gradient
from hosnn.robustness.pgd import PGD, at_clean, on_sphere
from hosnn.robustness.sapgd import SAPGD
from hosnn.robustness.scheduled_ascent import AscentState, Schedule
from hosnn.robustness.threats import Threat
from tests.robustness.models import Wavy, linear, samples

FREE_LINF, FREE_L2 = Threat(Linf(0.1), domain=None), Threat(L2(0.3), domain=None)


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


def fooled(model: Callable[[Tensor], Tensor], x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


@cache
def network() -> nn.Sequential:
    """A small network on four overlapping clouds, robust enough that eps decides."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5))
    torch.set_rng_state(torch_state)
    x, y = clouds(600, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False)


def clouds(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [B, 1, 3, 4] of five classes: each class three bright spots of its own in noise."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.rand(15, 12, generator=torch.Generator().manual_seed(5))
    which = torch.randint(15, (count,), generator=generator)
    x = (0.25 + 0.5 * middles[which] + 0.1 * torch.randn(count, 12, generator=generator)).clamp(0, 1)
    return x.view(-1, 1, 3, 4), which % 5


@pytest.mark.parametrize("threat", [FREE_LINF, FREE_L2], ids=str)
@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_apgd_reaches_the_optimum_of_a_linear_model_of_two_classes(threat: Threat, loss: Loss) -> None:
    """eps · sign of the gradient in Linf, eps · g/|g| in L2, for samples that stay right even there."""
    w = 0.2 * next(linear(2).parameters())[0].detach()
    model = offset_by(w, 8.0)
    x, y = samples(8)[0], torch.zeros(8, dtype=torch.int64)
    best = -w.sign() * 0.1 if threat is FREE_LINF else -0.3 * w / w.norm()
    x_adv = APGD(threat, steps=60, loss=loss)(model, x, y, rng(8))
    torch.testing.assert_close((x_adv - x).flatten(1), best.expand(8, 12), rtol=0, atol=2e-5)


def offset_by(w: Tensor, offset: float) -> Callable[[Tensor], Tensor]:
    """Two classes; class 0 leads by 2 w · x + offset."""

    def model(x: Tensor) -> Tensor:
        score = x.flatten(1) @ w + offset / 2
        return torch.stack([score, -score], 1)

    return model


@pytest.mark.parametrize("threat", [FREE_LINF, FREE_L2], ids=str)
def test_apgd_dlr_finds_the_optimum_of_a_linear_model(threat: Threat) -> None:
    """Three classes, one of them far behind and flat: the ratio falls with the lead of class 0 over class 1 alone."""
    w = next(linear(2).parameters())[0].detach()

    def model(x: Tensor) -> Tensor:
        score = x.flatten(1) @ w
        return torch.stack([score + 20, -score - 20, torch.full_like(score, -1e3)], 1)

    x, y = samples(8)[0], torch.zeros(8, dtype=torch.int64)
    best = -w.sign() * 0.1 if threat is FREE_LINF else -0.3 * w / w.norm()
    x_adv = APGD(threat, steps=60, loss=dlr)(model, x, y, rng(8))
    torch.testing.assert_close((x_adv - x).flatten(1), best.expand(8, 12), rtol=0, atol=2e-5)


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.1)], ids=str)
def test_a_targeted_attack_loses_every_sample_that_can_be_lost(ball: Ball) -> None:
    """Linear model, exact answer: the lead over class j shrinks by eps times the dual norm of w_y - w_j."""
    model, threat = linear(6), Threat(ball, domain=None)
    x = samples(120, 6)[0]
    logits, w = model(x).detach(), next(model.parameters()).detach()
    y = logits.argmax(1)
    order = 1 if isinstance(ball, Linf) else 2
    reach = ball.eps * torch.linalg.vector_norm(w[y][:, None] - w[None], ord=order, dim=2)
    slack = logits.gather(1, y[:, None]) - logits - reach
    slack.scatter_(1, y[:, None], float("inf"))
    possible, doubtful = slack.amin(1) < 0, slack.amin(1).abs() < 1e-3
    for loss in (targeted_margin, targeted_dlr):
        lost = fooled(model, APGDTargeted(threat, steps=30, targets=5, loss=loss)(model, x, y, rng(120)), y)
        assert torch.equal(lost[~doubtful], possible[~doubtful])
    # The most likely point for a class need not be the one that leads the label most.
    attack = APGDTargeted(threat, steps=30, targets=5, loss=targeted_cross_entropy)
    lost = fooled(model, attack(model, x, y, rng(120)), y)
    assert not (lost & ~possible)[~doubtful].any() and lost.sum() > 0.9 * possible.sum()
    assert 12 < possible.sum() < 108 and doubtful.sum() < 10


def test_a_target_in_reach_is_reached() -> None:
    """Two classes lead and differ; the sample moves from the first to the second, not to one far behind."""
    model, threat = linear(5), Threat(Linf(0.3), domain=None)
    x = samples(200)[0]
    scores = model(x)
    ranked = scores.argsort(1, descending=True)
    lead = scores.gather(1, ranked)
    near = (lead[:, 0] - lead[:, 1] < 1.0) & (lead[:, 1] - lead[:, 2] > 1.0)
    attack = APGDTargeted(threat, steps=40, targets=1, loss=targeted_margin, start=at_clean)
    moved = model(attack(model, x[near], ranked[near, 0], rng(int(near.sum())))).argmax(1)
    assert near.sum() > 10 and torch.equal(moved, ranked[near, 1])


def test_more_targets_are_never_weaker() -> None:
    (x, y), threat = clouds(200, 2), Threat(Linf(0.09))
    lost = [
        fooled(network(), APGDTargeted(threat, steps=6, targets=targets)(network(), x, y, rng(200)), y)
        for targets in (1, 2, 4)
    ]
    assert (lost[1] | ~lost[0]).all() and (lost[2] | ~lost[1]).all() and lost[2].sum() > lost[0].sum()
    beyond = APGDTargeted(threat, steps=6, targets=9)(network(), x, y, rng(200))
    assert torch.equal(fooled(network(), beyond, y), lost[2]), "there are only four wrong classes"


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.15)], ids=str)
def test_apgd_is_not_weaker_than_pgd_of_as_many_passes(ball: Ball) -> None:
    (x, y), threat = clouds(300, 2), Threat(ball)
    apgd, pgd = (
        int(fooled(network(), attack(network(), x, y, rng(300)), y).sum())
        for attack in (APGD(threat, steps=29), PGD(threat, steps=30))
    )
    assert 100 < pgd <= apgd < 250


def masked(x: Tensor) -> Tensor:
    """The network with logits times 1e4: in float32 the softmax is exactly one-hot, its gradient exactly zero."""
    scores: Tensor = network()(x)
    return 1e4 * scores


def test_a_scale_that_masks_cross_entropy_does_not_mask_dlr() -> None:
    (x, y), threat = clouds(300, 2), Threat(Linf(0.06))

    plain = fooled(network(), APGD(threat, 20)(network(), x, y, rng(300)), y).sum()
    blinded = fooled(masked, APGD(threat, 20)(masked, x, y, rng(300)), y).sum()
    assert blinded < 0.75 * plain
    attacks: tuple[Attack, ...] = (
        APGD(threat, 20, loss=dlr),
        APGD(threat, 20, loss=scaled_cross_entropy),
        APGDTargeted(threat, 20, targets=4),
        SAPGD(threat, 20, loss=dlr),
    )
    for attack in attacks:
        assert fooled(masked, attack(masked, x, y, rng(300)), y).sum() > 0.9 * plain


@pytest.mark.parametrize("threat", [Threat(Linf(0.1)), Threat(L2(0.3))], ids=str)
def test_the_step_is_the_published_one(threat: Threat) -> None:
    """Croce & Hein 2020, algorithm 1, written out: 2 eps at first, no momentum in the first step, then 0.75."""
    x, ball, inner = samples()[0], threat.ball, linear()

    def bent(x: Tensor) -> Tensor:
        scores: Tensor = (2 * inner(x)).sin()
        return torch.cat([scores.new_full((len(x), 1), 9.0), scores], 1)

    y = torch.zeros(16, dtype=torch.int64)
    points = [x]
    for step in range(4):
        now, before = points[-1], points[max(step - 1, 0)]
        gradient = input_gradient(bent, now, y, cross_entropy).gradient
        ahead = threat.project(now + 2 * ball.eps * ball.steepest(gradient), x)
        share = 0.75 if step else 1.0
        points.append(threat.project(now + share * (ahead - now) + (1 - share) * (now - before), x))
    seen: list[Tensor] = []

    def recording_model(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return bent(x)

    APGD(threat, steps=20, start=at_clean)(recording_model, x, y, rng())
    assert len(seen) == 21
    for taken, published in zip(seen, points, strict=False):
        torch.testing.assert_close(taken, published)


def test_checkpoints_are_the_published_ones() -> None:
    """Croce & Hein 2020, section 4: p_j in hundredths of the steps, rounded up."""
    assert Schedule(100).checkpoints == (22, 41, 57, 70, 80, 87, 93, 99)
    assert Schedule(1000).checkpoints == (220, 410, 570, 700, 800, 870, 930, 990)
    assert Schedule(10).checkpoints == (3, 5, 6, 7, 8, 9, 10)
    assert Schedule(1).checkpoints == (1,)


def state_of(rises: list[int], checkpoint_loss: float = 1.0, halved: tuple[bool, ...] = (False,) * 3) -> AscentState:
    """Three samples at 1 of loss 1, whose best points so far are at 2, with gradient 3 and loss 4."""
    one, each = torch.ones(3, 1), torch.ones(3)
    return AscentState(
        *(
            torch.arange(3),
            one,
            torch.zeros(3, dtype=torch.int64),
            one,
            one,
            each,
            2 * one,
            3 * one,
            4 * each,
            2 * each,
        ),
        rises=torch.tensor(rises),
        checkpoint_loss=checkpoint_loss * each,
        halved=torch.tensor(halved),
        momentum=(),
    )


def test_too_few_rises_halve_the_step_and_go_back_to_the_best_point() -> None:
    """Condition 1 alone: the best loss did improve."""
    after = Schedule(100).apply(state_of([14, 15, 20]), 20)
    assert after.step_size.tolist() == [1.0, 2.0, 2.0] and after.halved.tolist() == [True, False, False]
    assert after.x_adv[:, 0].tolist() == [2.0, 1.0, 1.0] and after.gradient[:, 0].tolist() == [3.0, 1.0, 1.0]
    assert after.loss.tolist() == [4.0, 1.0, 1.0] and after.rises.tolist() == [0, 0, 0]


def test_a_best_loss_that_stands_still_at_the_same_step_size_halves_it() -> None:
    """Condition 2 alone: every step rose, but the best loss was not passed; not straight after a halving."""
    after = Schedule(100).apply(state_of([20, 20, 20], checkpoint_loss=4.0, halved=(False, True, False)), 20)
    assert after.halved.tolist() == [True, False, True] and after.checkpoint_loss.tolist() == [4.0] * 3
    assert not Schedule(100).apply(state_of([20, 20, 20], checkpoint_loss=3.9), 20).halved.any()


def test_an_infinite_share_halves_always_and_stays() -> None:
    after = Schedule(100, rho=float("inf"), from_best=False).apply(state_of([20, 20, 20]), 20)
    assert after.step_size.tolist() == [1.0] * 3 and after.x_adv[:, 0].tolist() == [1.0] * 3


@pytest.mark.parametrize("attack", [APGD(Threat(Linf(0.03)), 6), SAPGD(Threat(Linf(0.03)), 6)], ids=["apgd", "sapgd"])
def test_a_sample_already_lost_costs_no_more_passes(attack: APGD | SAPGD) -> None:
    """Steps + 1 passes for a sample that stands; one for a sample that is lost where it starts."""
    (x, y), model = samples(64, 2), Wavy()
    right = model(x).argmax(1)
    for labels, expected in ((right, 7 * 64), (1 - right, 64)):
        with count_passes() as passes:
            still = replace(attack, threat=Threat(Linf(0.0)))
            still(model, x, labels, rng(64))
        assert (passes.forward, passes.backward) == (expected, expected)
    with count_passes() as passes:
        attack(model, x, y, rng(64))
    assert 64 < passes.forward < 7 * 64 and passes.forward == passes.backward


def test_restarts_and_targets_cost_only_samples_still_robust() -> None:
    x, model = samples(64, 6)[0], linear(6)
    right, free = model(x).argmax(1), Threat(Linf(0.0))
    for attack, forward, backward in (
        (APGD(free, 4, restarts=3), 15, 15),
        (APGDTargeted(free, 4, targets=3, restarts=2), 31, 30),
        (APGDTargeted(free, 4, targets=9), 26, 25),
    ):
        with count_passes() as passes:
            attack(model, x, right, rng(64))
        assert (passes.forward, passes.backward) == (64 * forward, 64 * backward)
        with count_passes() as passes:
            attack(model, x, (right + 1) % 6, rng(64))
        assert passes.backward == (64 if isinstance(attack, APGD) else 0), "lost before anything was tried"


@pytest.mark.parametrize("attack", [APGD(Threat(Linf(0.05)), 3), SAPGD(Threat(Linf(0.05)), 3)], ids=["apgd", "sapgd"])
def test_more_restarts_are_never_weaker(attack: APGD | SAPGD) -> None:
    """Where the gradient vanishes the start decides."""
    x, y = clouds(300, 2)
    lost = [fooled(masked, replace(attack, restarts=number)(masked, x, y, rng(300)), y) for number in (1, 2, 6)]
    assert (lost[1] | ~lost[0]).all() and (lost[2] | ~lost[1]).all() and lost[2].sum() > lost[0].sum()


@pytest.mark.parametrize("attack", [APGD(Threat(Linf(0.05)), 3), SAPGD(Threat(Linf(0.05)), 3)], ids=["apgd", "sapgd"])
def test_the_best_of_all_restarts_comes_back(attack: APGD | SAPGD) -> None:
    x, y = clouds(300, 2)
    points = [replace(attack, restarts=number)(network(), x, y, rng(300)) for number in (1, 2, 6)]
    stands = ~fooled(network(), points[2], y)
    losses = [cross_entropy(network()(point), y)[stands] for point in points]
    assert (losses[1] >= losses[0] - 1e-6).all() and (losses[2] >= losses[1] - 1e-6).all()
    assert losses[2].sum() > losses[0].sum()


@pytest.mark.parametrize("attack", [APGD, SAPGD])
def test_the_best_point_comes_back_not_the_last(attack: type[APGD] | type[SAPGD]) -> None:
    """Of all points evaluated, the one of largest loss; over ripples, so that it is seldom the last."""
    x, y = samples()[0], torch.zeros(16, dtype=torch.int64)
    seen: list[Tensor] = []

    def rippled(x: Tensor) -> Tensor:
        seen.append(x.detach())
        ripple = (300 * x.flatten(1)).sin().sum(1)
        return torch.stack([torch.full_like(ripple, 20.0), ripple], 1)

    x_adv = attack(Threat(Linf(0.1)), steps=6, loss=margin)(rippled, x, y, rng())
    losses = torch.stack([margin(rippled(point), y) for point in seen[:7]])
    torch.testing.assert_close(margin(rippled(x_adv), y), losses.amax(0))
    assert (losses[-1] < losses.amax(0) - 0.01).sum() > 4, "or this test shows nothing"


@pytest.mark.parametrize("attack", [APGD(FREE_LINF, 12), SAPGD(FREE_LINF, 12)], ids=["apgd", "sapgd"])
def test_a_loss_that_is_not_a_number_is_no_improvement(attack: APGD | SAPGD) -> None:
    """Beyond a wall the loss is NaN: the point returned lies before it, and Auto-PGD finds its way up to the wall."""

    def model(x: Tensor) -> Tensor:
        height = x.flatten(1).sum(1)
        return torch.stack([torch.full_like(height, 9.0), height], 1)

    def walled(scores: Tensor, y: Tensor) -> Tensor:
        return torch.where(scores[:, 1] > 0.5, float("nan"), scores[:, 1])

    x, y = torch.full((4, 1, 1, 12), 0.01, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    x_adv = replace(attack, loss=walled, start=at_clean)(model, x, y, rng(4))
    height = x_adv.flatten(1).sum(1)
    assert (height <= 0.5).all() and (height >= 0.12 - 1e-12).all()
    if isinstance(attack, APGD):
        assert (height > 0.25).all()


@pytest.mark.parametrize("domain", [(0.0, 1.0), None])
def test_frames_and_other_shapes_are_attacked_as_a_whole(domain: tuple[float, float] | None) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4 * 5, 4).double())
    x = torch.rand(6, 2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    for ball in (Linf(0.02), L2(0.1)):
        threat = Threat(ball, domain=domain)
        attacks: list[Attack] = [APGD(threat, 5), APGDTargeted(threat, 3)]
        if isinstance(ball, Linf):
            attacks.append(SAPGD(threat, 5))
        for attack in attacks:
            targets: tuple[Model, ...] = (model, AveragedModel(model, 2))
            for target in targets:
                x_adv = attack(target, x, y, rng(6))
                assert x_adv.shape == x.shape and threat.allows(x_adv, x, atol=1e-12).all()
                assert (margin(model(x_adv), y) > margin(model(x), y)).all()


def test_another_seed_takes_another_way() -> None:
    (x, y), threat = clouds(50, 2), Threat(Linf(0.05))
    attacks: tuple[Attack, ...] = (APGD(threat, 3), APGDTargeted(threat, 3), SAPGD(threat, 3))
    for attack in attacks:
        assert not torch.equal(attack(network(), x, y, rng(50)), attack(network(), x, y, rng(50, seed=1)))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(0.8)], ids=str)
def test_the_start_lies_on_the_surface(ball: Ball) -> None:
    x, _ = samples(64)
    start = on_sphere(ball, x, rng(64))
    torch.testing.assert_close(ball.size(start), torch.full((64,), ball.eps, dtype=x.dtype))
    assert 0.4 < (start > 0).double().mean() < 0.6
    assert torch.equal(on_sphere(replace(ball, eps=0.0), x, rng(64)), torch.zeros_like(x))


def test_settings_out_of_range_raise() -> None:
    for wrong in ({"steps": 0}, {"restarts": 0}, {"targets": 0}):
        for attack in (APGD, APGDTargeted) if "targets" not in wrong else (APGDTargeted,):
            with pytest.raises(ConfigError, match="at least 1 of each"):
                attack(FREE_LINF, **wrong)  # type: ignore[arg-type]
    for attack in (APGD, APGDTargeted):
        with pytest.raises(ConfigError, match=r"l1:1.*supports linf and l2.*PGD"):
            attack(Threat(L1(1.0)))
    with pytest.raises(ConfigError, match="at least 4"):
        APGDTargeted(FREE_LINF, 2)(linear(3), *samples(), rng())
    with pytest.raises(ConfigError, match="at least 3"):
        APGD(FREE_LINF, 2, loss=dlr)(Wavy(), *samples(classes=2), rng())
