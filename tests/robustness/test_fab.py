"""The boundary attack against distances that are known in closed form."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Ball, Linf
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.fab import FAB, to_hyperplane
from hosnn.robustness.losses import tied
from hosnn.robustness.model import count_passes
from hosnn.robustness.pgd import PGD, at_clean
from hosnn.robustness.threats import Threat
from tests.covering import each_pair, each_value
from tests.robustness.models import SHAPE, Wavy, linear, samples
from tests.robustness.personal import personal

NORMS = {"linf": Linf(0.1), "l2": L2(0.4), "l1": L1(0.8)}
EVERY = pytest.mark.parametrize("ball", NORMS.values(), ids=NORMS)
DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
DOMAINS = ((0.0, 1.0), None)
EVERY_DOMAIN = pytest.mark.parametrize("domain", DOMAINS, ids=["box", "free"])


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(x_adv)
    return scores.argmax(1) != y


def right(model: nn.Module, count: int = 16) -> tuple[Tensor, Tensor]:
    """Samples that the model gets right, away from the edges of the pixel range."""
    x = 0.3 + 0.4 * samples(count)[0]
    with torch.no_grad():
        return x, model(x).argmax(1)


def least_distance(model: nn.Sequential, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """To the nearest boundary of a linear model, without a domain: min over classes of margin / |w_y - w_j| (dual)."""
    weight = next(model.parameters()).detach()
    scores = x.flatten(1) @ weight.T
    gap = scores.gather(1, y[:, None]) - scores
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=DUAL[ball.name], dim=2)
    distance: Tensor = (gap / slope.clamp(min=1e-9)).scatter(1, y[:, None], torch.inf).amin(1)
    return distance


@EVERY
@pytest.mark.parametrize("classes", [2, 5])
def test_the_distance_to_a_linear_boundary_is_found(ball: Ball, classes: int) -> None:
    model = linear(classes)
    x, y = right(model)
    found = FAB(Threat(ball, domain=None), steps=20).closest(model, x, y, rng())
    expected = least_distance(model, x, y, ball)
    assert fooled(model, found.x_adv, y).all()
    assert (found.distance >= expected * (1 - 1e-9)).all() and (found.distance <= expected * 1.05).all()
    torch.testing.assert_close(found.distance, ball.size(found.x_adv - x))


@EVERY
def test_fewer_targets_miss_the_nearest_boundary(ball: Ball) -> None:
    model = linear(6)
    with torch.no_grad():  # a class that is close in score but slow to gain on the others
        weight = next(model.parameters())
        weight[5] = 0.01 * weight[5] + weight[0]
    x, y = right(model, 60)
    threat = Threat(ball, domain=None)
    one, all_ = (FAB(threat, steps=10, targets=targets).closest(model, x, y, rng(60)).distance for targets in (1, 9))
    assert (all_ <= one).all() and (all_ < 0.9 * one).any()


@pytest.mark.parametrize(("ball", "domain"), each_value(tuple(NORMS.values()), DOMAINS))
def test_success_is_a_matter_of_distance(ball: Ball, domain: tuple[float, float] | None) -> None:
    """Inside the ball where the boundary is near enough; x itself, exactly, where it is not."""
    model = linear(4)
    x, y = right(model, 60)
    threat = Threat(ball, domain).with_eps(least_distance(model, x, y, ball).median().item())
    attack = FAB(threat, steps=20)
    x_adv, distance = attack(model, x, y, rng(60)), attack.closest(model, x, y, rng(60)).distance
    lost = fooled(model, x_adv, y)
    assert torch.equal(lost, distance <= threat.ball.eps) and 0 < lost.sum() < 60
    assert torch.equal(x_adv[~lost], x[~lost]) and threat.allows(x_adv, x, atol=1e-12).all()


@EVERY
@EVERY_DOMAIN
@pytest.mark.parametrize("model", [linear(), Wavy()], ids=["linear", "wavy"])
def test_attack_stays_inside_its_threat(ball: Ball, domain: tuple[float, float] | None, model: nn.Module) -> None:
    x, y = samples(classes=2)
    x[0], x[1] = 0.0, 1.0
    threat = Threat(ball, domain)
    x_adv = FAB(threat, steps=5, restarts=2)(model, x, y, rng())
    assert threat.allows(x_adv, x, atol=1e-12).all() and x_adv.shape == x.shape and not x_adv.requires_grad


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_stays_inside_the_threat(ball: Ball, dtype: torch.dtype) -> None:
    x, y = samples(dtype=dtype)
    x_adv = FAB(Threat(ball), steps=5)(linear(dtype=dtype), x, y, rng())
    assert x_adv.dtype is dtype
    assert Threat(ball).allows(x_adv.double(), x.double(), atol=12 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize(("ball", "domain", "scale"), each_pair(tuple(NORMS.values()), DOMAINS, (1e-30, 1e30)))
def test_the_scale_of_the_scores_does_not_matter(ball: Ball, domain: tuple[float, float] | None, scale: float) -> None:
    model = linear(4)
    x, y = right(model)
    attack = FAB(Threat(ball, domain), steps=6)
    plain = attack.closest(model, x, y, rng())
    scaled = attack.closest(lambda x: scale * model(x), x, y, rng())
    torch.testing.assert_close(scaled.distance, plain.distance)


@pytest.mark.parametrize(
    ("ball", "domain", "broken"), each_pair(tuple(NORMS.values()), DOMAINS, (float("nan"), float("inf")))
)
def test_gradients_and_scores_that_are_no_numbers_do_not_lead_outside(
    ball: Ball, domain: tuple[float, float] | None, broken: float
) -> None:
    class Gradient(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = linear()(x)
            return scores + 0 * (x - x.detach()).square().sum((1, 2, 3)).sqrt()[:, None]

    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = linear()(x)
            return scores * torch.where(x.flatten(1)[:, :1] > 0.5, broken, 1.0)

    x, y = samples()
    threat = Threat(ball, domain)
    for model in (Gradient(), Scores()):
        assert threat.allows(FAB(threat, steps=4, restarts=2)(model, x, y, rng()), x).all()


@EVERY
@EVERY_DOMAIN
def test_the_projection_is_the_least_move_onto_the_plane(ball: Ball, domain: tuple[float, float] | None) -> None:
    """It meets the plane, stays in the domain, and no other such move is shorter: any direction along the plane, cut to
    what the domain allows, makes it longer."""
    generator = torch.Generator().manual_seed(1)
    threat, (count, size) = Threat(ball, domain), (40, 6)
    z, slope = (torch.rand(count, size, generator=generator, dtype=torch.float64) for _ in range(2))
    slope = slope - 0.5
    slope[:, 0] = 0  # a pixel that does not matter
    height = torch.rand(count, generator=generator, dtype=torch.float64) - 0.5
    move = to_hyperplane(threat, z, slope, height)
    room = torch.where(-slope * height.sign()[:, None] > 0, 1 - z, z)
    reachable = (slope.abs() * room).sum(1) >= height.abs() if domain else torch.ones(count, dtype=torch.bool)
    after = height + (slope * move).sum(1)
    assert 10 < reachable.sum() and (after[reachable].abs() < 1e-9).all()
    assert (move[:, 0] == 0).all()
    if domain:
        assert ((z + move > -1e-12) & (z + move < 1 + 1e-12)).all()
        assert (~reachable).any() and (after.abs() <= height.abs()).all()
        torch.testing.assert_close(move[~reachable].abs()[:, 1:], room[~reachable][:, 1:])
    for _ in range(300):
        other = move + 0.05 * torch.randn(count, size, generator=generator, dtype=torch.float64)
        if domain:
            other = (z + other).clamp(0, 1) - z
        onto = (height + (slope * other).sum(1)) * height.sign() <= 1e-12  # on the plane or beyond it
        assert (ball.size(other) >= ball.size(move) - 1e-9)[onto & reachable].all()


@EVERY
def test_a_sample_is_attacked_the_same_in_any_batch(ball: Ball) -> None:
    attack, model = FAB(Threat(ball), steps=5, restarts=2), personal()
    x = 0.3 + 0.4 * samples()[0]
    y = model(x).argmax(1)
    whole = attack(model, x, y, rng())
    for rows in (torch.tensor([5]), torch.tensor([9, 2, 14]), torch.arange(16).flip(0)):
        part = attack(model.subset(rows), x[rows], y[rows], rng().subset(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-12)


def test_restarts_draw_from_their_samples_stream_alone() -> None:
    (x, y), model = samples(), Wavy()
    y = torch.zeros_like(y)
    attack = FAB(Threat(Linf(0.1)), steps=3, restarts=3)
    first, state = attack.closest(model, x, y, rng()).x_adv, torch.get_rng_state()
    assert torch.equal(attack.closest(model, x, y, rng()).x_adv, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(attack.closest(model, x, y, rng(seed=1)).x_adv, first)


def test_restarts_never_find_a_farther_point() -> None:
    (x, y), model = samples(100), Wavy()
    y = torch.zeros_like(y)
    once, thrice = (FAB(Threat(Linf(0.1)), 3, restarts=n).closest(model, x, y, rng(100)).distance for n in (1, 3))
    assert (thrice <= once).all() and (thrice < once).any()


def test_a_sample_costs_two_forwards_a_step_until_it_falls() -> None:
    model = linear(3)
    x, y = right(model)
    with count_passes() as passes:
        FAB(Threat(Linf(1e-6)), steps=7)(model, x, y, rng())
    assert (passes.forward, passes.backward) == (16 + 2 * 16 * 7 * 2, 2 * 16 * 7)
    with count_passes() as passes:
        FAB(Threat(Linf(0.9), domain=None), steps=7)(model, x, y, rng())
    assert passes.forward < 16 + 2 * 16 * 3


def test_what_is_fooled_already_comes_back_untouched() -> None:
    (x, _), model = samples(), linear()
    y = (model(x).argmax(1) + 1) % 3
    with count_passes() as passes:
        assert torch.equal(FAB(Threat(Linf(0.1)))(model, x, y, rng()), x)
    assert (passes.forward, passes.backward) == (16, 0)
    assert torch.equal(FAB(Threat(Linf(0.1)))(model, x[:0], y[:0], rng(0)), x[:0])


def test_the_boundary_is_found_where_noise_does_not_find_it() -> None:
    model, threat = linear(4), Threat(Linf(0.1))
    x, y = right(model, 200)
    noise, fab = (fooled(model, attack(model, x, y, rng(200)), y).sum() for attack in (Noise(threat), FAB(threat, 10)))
    assert noise < fab


def test_settings_out_of_range_raise() -> None:
    for wrong in ({"steps": 0}, {"targets": 0}, {"restarts": 0}):
        with pytest.raises(ConfigError, match="at least 1 of each"):
            FAB(Threat(Linf(0.1)), **wrong)
    for bad in ({"bias": -0.1}, {"bias": float("nan")}, {"overshoot": 0.9}, {"backward": 0.0}, {"backward": 1.1}):
        with pytest.raises(ConfigError, match="expected 0 <= bias"):
            FAB(Threat(Linf(0.1)), **bad)  # type: ignore[arg-type]

    class Other(Ball):
        name = "other"

    with pytest.raises(ConfigError, match="linf, l2 and l1 only"):
        FAB(Threat(Other(1.0)))


class Touching(nn.Module):
    """Two classes; the second reaches the first's score and never exceeds it, though the gradient says otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        second = x.flatten(1).sum(1)
        capped = second + (second.clamp(max=5.0) - second).detach()
        return torch.stack([torch.full_like(second, 5.0), capped], 1)


@pytest.mark.parametrize(
    "attack", [FAB(Threat(Linf(0.1)), 10, targets=1), PGD(Threat(Linf(0.1)), 10)], ids=["FAB", "PGD"]
)
def test_a_tie_inside_the_ball_is_kept_where_no_point_is_misclassified(attack: FAB | PGD) -> None:
    x, y = torch.full((4, *SHAPE), 0.4), torch.zeros(4, dtype=torch.int64)
    assert tied(Touching()(attack(Touching(), x, y, rng(4))), y).all()


def test_a_tie_on_the_way_is_kept_if_the_last_point_is_right() -> None:
    class Narrow(nn.Module):
        """A tie where the mean pixel is within 0.02 of 0.45 only."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.flatten(1).mean(1)
            second = mean + (torch.where((mean - 0.45).abs() < 0.02, 1.0, 0.0) - mean).detach()
            return torch.stack([torch.ones_like(mean), second], 1)

    x, y = torch.full((4, *SHAPE), 0.4), torch.zeros(4, dtype=torch.int64)
    threat = Threat(Linf(0.1))
    attack = PGD(threat, 10, start=at_clean)
    assert tied(Narrow()(attack(Narrow(), x, y, rng(4))), y).all()
    assert not tied(Narrow()(replace(attack, keep_best=False)(Narrow(), x, y, rng(4))), y).any()
