"""An attack on labels alone, against distances that are known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Ball, Linf
from hosnn.robustness.hop_skip_jump import HopSkipJump
from hosnn.robustness.model import count_passes
from hosnn.robustness.threats import Threat
from tests.covering import each_value
from tests.robustness.models import linear, samples
from tests.robustness.personal import personal

NORMS = {"linf": Linf(0.1), "l2": L2(0.4)}
EVERY = pytest.mark.parametrize("ball", NORMS.values(), ids=NORMS)
DOMAINS = ((0.0, 1.0), None)
SHORT = {"queries": 120, "probes": 12}
"""Settings for a few iterations, where the result need not be close to the boundary."""


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


class Labels(nn.Module):
    """The class and nothing else: one-hot scores, without a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        with torch.no_grad():
            scores = self.model(x)
        return functional.one_hot(scores.argmax(1), scores.shape[1]).to(x.dtype)


def right(model: nn.Module, count: int = 16) -> tuple[Tensor, Tensor]:
    x = 0.3 + 0.4 * samples(count)[0]
    with torch.no_grad():
        return x, model(x).argmax(1)


@EVERY
def test_the_distance_to_a_linear_boundary_is_found_from_labels_alone(ball: Ball) -> None:
    model = linear(2)
    x, y = right(model)
    attack = HopSkipJump(Threat(ball, domain=None), queries=800, probes=50)
    closest = attack.closest(Labels(model), x, y, rng())
    weight = next(model.parameters()).detach()
    scores = x.flatten(1) @ weight.T
    slope = torch.linalg.vector_norm(weight[0] - weight[1], ord=1 if ball.name == "linf" else 2)
    expected = (scores[:, 0] - scores[:, 1]).abs() / slope
    distance = ball.size(closest - x)
    assert (model(closest).argmax(1) != y).all()
    assert (distance >= expected * (1 - 1e-9)).all() and (distance <= expected * 1.2).all()


@EVERY
def test_more_queries_come_closer(ball: Ball) -> None:
    model = linear(4)
    x, y = right(model)
    few, many = (
        ball.size(HopSkipJump(Threat(ball), queries, probes=50).closest(Labels(model), x, y, rng()) - x)
        for queries in (100, 500)
    )
    assert (many <= few).all() and many.mean() < 0.8 * few.mean()


@EVERY
@pytest.mark.parametrize(("queries", "domain"), each_value((1, 30, 120, 120), DOMAINS))
def test_attack_stays_inside_its_threat_and_its_queries(
    ball: Ball, domain: tuple[float, float] | None, queries: int
) -> None:
    model, threat = linear(), Threat(ball, domain)
    x, y = samples()
    x[0], x[1] = 0.0, 1.0
    for row in range(3):
        with count_passes() as passes:
            x_adv = HopSkipJump(threat, queries, probes=12)(model, x[row : row + 1], y[row : row + 1], rng(1))
        assert 0 < passes.forward <= queries and passes.backward == 0
        assert threat.allows(x_adv, x[row : row + 1], atol=1e-12).all()


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_stays_inside_the_threat(ball: Ball, dtype: torch.dtype) -> None:
    x, y = samples(dtype=dtype)
    x_adv = HopSkipJump(Threat(ball), **SHORT)(linear(dtype=dtype), x, y, rng())
    assert x_adv.dtype is dtype
    assert Threat(ball).allows(x_adv.double(), x.double(), atol=12 * torch.finfo(dtype).eps).all()


@EVERY
def test_success_is_a_matter_of_distance(ball: Ball) -> None:
    """In the ball a point that is adversarial; outside it the closest point's projection."""
    model = linear(3)
    x, y = right(model, 40)
    threat = Threat(ball)
    attack = HopSkipJump(threat, queries=250, probes=20)
    x_adv, closest = attack(Labels(model), x, y, rng(40)), attack.closest(Labels(model), x, y, rng(40))
    near = ball.size(closest - x) <= ball.eps
    assert 0 < near.sum() < 40 and (model(x_adv).argmax(1) != y)[near].all()
    torch.testing.assert_close(x_adv[~near], threat.project(closest, x)[~near])


@EVERY
def test_a_sample_inside_the_ball_is_shown_one_more(ball: Ball) -> None:
    model = linear(3)
    x, y = right(model)
    shown = []
    for eps in (1.0, 0.0):
        labels = Labels(model)
        HopSkipJump(Threat(ball).with_eps(eps), **SHORT)(labels, x, y, rng())
        shown.append(labels.seen)
    assert shown[0] < shown[1] <= 16 * 120


@pytest.mark.parametrize(("ball", "domain"), each_value(tuple(NORMS.values()), DOMAINS))
def test_a_sample_is_attacked_the_same_in_any_batch(ball: Ball, domain: tuple[float, float] | None) -> None:
    attack, model = HopSkipJump(Threat(ball, domain), **SHORT), personal()
    x = 0.3 + 0.4 * samples()[0]
    y = model(x).argmax(1)
    whole = attack(model, x, y, rng())
    for rows in (torch.tensor([5]), torch.tensor([9, 2, 14]), torch.arange(16).flip(0)):
        part = attack(model.subset(rows), x[rows], y[rows], rng().subset(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-9)


@EVERY
def test_the_seed_and_the_samples_index_decide(ball: Ball) -> None:
    attack, model = HopSkipJump(Threat(ball), **SHORT), linear(4)
    x, y = right(model)
    first, state = attack(model, x, y, rng()), torch.get_rng_state()
    assert torch.equal(attack(model, x, y, rng()), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(attack(model, x, y, rng(seed=1)), first)


SHAPES = ((5,), (3, 3), (3, 7, 2), (2, 3, 5, 4), (1, 1, 1))


@pytest.mark.parametrize(("shape", "ball"), each_value(SHAPES, tuple(NORMS.values())))
def test_images_of_any_shape(shape: tuple[int, ...], ball: Ball) -> None:
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def brightness(x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([mean, 0.5 - mean + 0.3], 1)

    y = brightness(x).argmax(1)
    x_adv = HopSkipJump(Threat(ball), **SHORT)(brightness, x, y, rng(6))
    assert x_adv.shape == x.shape and Threat(ball).allows(x_adv, x, atol=1e-12).all()


@EVERY
def test_where_no_start_is_adversarial_the_image_comes_back(ball: Ball) -> None:
    x, y = samples()
    with count_passes() as passes:
        x_adv = HopSkipJump(Threat(ball), starts=7)(lambda x: functional.one_hot(y[: len(x)] * 0, 3), x, y * 0, rng())
    assert torch.equal(x_adv, x) and passes.forward == 16 * (1 + 7)


@EVERY
def test_what_is_fooled_already_comes_back_untouched(ball: Ball) -> None:
    (x, _), model = samples(), linear()
    y = (model(x).argmax(1) + 1) % 3
    with count_passes() as passes:
        assert torch.equal(HopSkipJump(Threat(ball))(model, x, y, rng()), x)
    assert passes.forward == 16
    assert torch.equal(HopSkipJump(Threat(ball))(model, x[:0], y[:0], rng(0)), x[:0])


@EVERY
def test_scores_that_are_no_numbers_do_not_lead_outside(ball: Ball) -> None:
    x, y = samples()
    inner = linear()

    def broken(x: Tensor) -> Tensor:
        return torch.where(x.flatten(1)[:, :1] > 0.5, float("nan"), inner(x))

    assert Threat(ball).allows(HopSkipJump(Threat(ball), **SHORT)(broken, x, y, rng()), x).all()


def test_settings_out_of_range_raise() -> None:
    with pytest.raises(ConfigError, match="linf and l2 only"):
        HopSkipJump(Threat(L1(1.0)))
    for wrong in ({"queries": 0}, {"probes": 0}, {"starts": 0}):
        with pytest.raises(ConfigError, match="at least 1 of each"):
            HopSkipJump(Threat(Linf(0.1)), **wrong)


def test_large_images_in_float32_are_probed_beyond_rounding() -> None:
    """distance / d is less than a float32 can add to a pixel here, and every probe would be the point itself."""
    size = 3 * 64 * 64
    slope = torch.randn(size, generator=torch.Generator().manual_seed(0))
    x = 0.4 + 0.2 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    distance = 0.002
    offset = x.flatten(1) @ slope - distance * slope.abs().sum()

    def model(points: Tensor) -> Tensor:
        height = points.flatten(1) @ slope - offset[: len(points)]
        return torch.stack([height, -height], 1)

    threat, y = Threat(Linf(0.0), domain=None), torch.zeros(1, dtype=torch.int64)
    closest = HopSkipJump(threat, queries=1000).closest(model, x[:1], y, rng(1))
    assert 1 <= Linf(0.0).size(closest - x[:1]).item() / distance < 10, "16 without a normal, 6 with one"


def _slab(x: Tensor, width: float) -> Callable[[Tensor], Tensor]:
    """Adversarial where the mean pixel of x has moved by 0.02 to 0.02 + width either way."""

    def model(points: Tensor) -> Tensor:
        moved = (points - x).flatten(1).mean(1).abs()
        inside = ((moved > 0.02) & (moved < 0.02 + width)).to(points.dtype)
        return torch.stack([1 - inside, inside], 1)

    return model


@EVERY
@pytest.mark.parametrize("width", [0.01, 9.0], ids=["thin", "thick"])
def test_a_point_inside_is_stretched_to_the_surface_where_the_model_still_errs(ball: Ball, width: float) -> None:
    """What hugs the boundary is adversarial by rounding only; in a thin slab there is nothing beyond."""
    x = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    model, threat = _slab(x, width), Threat(ball, domain=None)
    start = x + 0.025 if width < 1 else None
    attack = HopSkipJump(threat, queries=600) if start is None else Started(threat, queries=600, at=start)
    y = torch.zeros(1, dtype=torch.int64)
    with count_passes() as passes:
        x_adv = attack(model, x, y, rng(1))
    assert model(x_adv).argmax(1).item() == 1 and passes.forward <= 600
    reached = ball.size(x_adv - x).item()
    if width > 1:
        assert reached == pytest.approx(ball.eps)
    else:
        assert reached < 0.9 * ball.eps


@dataclass(frozen=True)
class Started(HopSkipJump):
    """Begins at a given point."""

    at: Tensor | None = None

    def _random_image(self, x: Tensor, attempt: int, rng: SampleRandom) -> Tensor:
        assert self.at is not None
        return self.at
