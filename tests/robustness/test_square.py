"""Random search: what it may spend, where it may go, and optima that are known."""

import pytest
import torch
from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Linf
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.model import count_passes
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from tests.covering import each_pair, each_value
from tests.robustness.models import linear, samples
from tests.robustness.personal import personal

LINF, EUCLID = Threat(Linf(0.1)), Threat(L2(0.5))
THREATS = (LINF, EUCLID)
BOTH = pytest.mark.parametrize("threat", THREATS, ids=str)


def rng(count: int = 16, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count) + 100)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(x_adv)
    return scores.argmax(1) != y


class Weighted(nn.Module):
    """Two classes, margin of class 0 over class 1 = w · x + bias, whatever the shape of x."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([score, torch.zeros_like(score)], 1)


class Stubborn(nn.Module):
    """Never fooled: every image is class 0, with scores that still vary."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        brightness = x.flatten(1).sum(1).cos()
        return torch.stack([brightness + 5, brightness.square()], 1)


SHAPES = [(1, 28, 28), (3, 3, 3), (2, 5, 9), (4, 2, 6, 6), (1, 1, 1), (3, 8), (12,)]


@pytest.mark.parametrize(("shape", "threat", "domain"), each_pair(SHAPES, THREATS, ((0.0, 1.0), None)))
def test_any_shape_stays_inside_the_threat(
    shape: tuple[int, ...], threat: Threat, domain: tuple[float, float] | None
) -> None:
    threat = Threat(threat.ball, domain)
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0], x[1] = 0.0, 1.0
    x_adv = Square(threat, queries=12)(Stubborn(), x, torch.zeros(5, dtype=torch.int64), rng(5))
    assert x_adv.shape == x.shape and threat.allows(x_adv, x, atol=1e-12).all() and not torch.equal(x_adv, x)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_stays_inside_the_threat(threat: Threat, dtype: torch.dtype) -> None:
    x, y = samples(dtype=dtype)
    x_adv = Square(threat, queries=20)(linear(dtype=dtype), x, y, rng())
    assert x_adv.dtype is dtype
    assert threat.allows(x_adv.double(), x.double(), atol=12 * torch.finfo(dtype).eps).all()


@BOTH
@pytest.mark.parametrize("queries", [1, 12])
def test_no_sample_is_shown_more_often_than_allowed(threat: Threat, queries: int) -> None:
    """Exactly the budget for who is never fooled; in total less where some are."""
    x, y = samples()
    with count_passes() as passes:
        Square(threat, queries)(Stubborn(), x, y * 0, rng())
    assert (passes.forward, passes.backward) == (16 * queries, 0)
    with count_passes() as passes:
        Square(threat, queries, restarts=2)(Stubborn(), x, y * 0, rng())
    assert passes.forward == 2 * 16 * queries


@BOTH
def test_a_fooled_sample_is_shown_no_more(threat: Threat) -> None:
    x, y = samples()
    y = linear()(x).argmax(1)
    each, fell = [], []
    for row in range(8):
        only = torch.tensor([row])
        with count_passes() as passes:
            x_adv = Square(threat, 30)(linear(), x[only], y[only], rng().subset(only))
        each.append(passes.forward)
        fell.append(bool(fooled(linear(), x_adv, y[only])))
    assert all((count < 30) or not down for count, down in zip(each, fell, strict=True))
    assert any(fell) and max(each) <= 30
    with count_passes() as passes:
        Square(threat, 30)(linear(), x[:8], y[:8], rng(8))
    assert passes.forward == sum(each)


@pytest.mark.parametrize(("threat", "domain"), each_value(THREATS, ((0.0, 1.0), None)))
def test_a_sample_is_attacked_the_same_in_any_batch(threat: Threat, domain: tuple[float, float] | None) -> None:
    attack, (x, y) = Square(Threat(threat.ball, domain), queries=20, restarts=2), samples()
    model = personal()
    y = model(x).argmax(1)
    whole = attack(model, x, y, rng())
    for rows in (torch.tensor([5]), torch.tensor([9, 2, 14]), torch.arange(16).flip(0)):
        part = attack(model.subset(rows), x[rows], y[rows], rng().subset(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-13)


@BOTH
def test_the_seed_and_the_samples_index_decide(threat: Threat) -> None:
    attack, (x, y) = Square(threat, queries=12), samples()
    y, kept = y * 0, x.clone()
    first, state = attack(Stubborn(), x, y, rng()), torch.get_rng_state()
    assert torch.equal(attack(Stubborn(), x, y, rng()), first)
    assert torch.equal(torch.get_rng_state(), state), "an attack must not draw from the global generator"
    assert not torch.equal(attack(Stubborn(), x, y, rng(seed=1)), first)
    assert not torch.equal(attack(Stubborn(), x, y, SampleRandom(0, torch.arange(16))), first)
    assert torch.equal(x, kept)


@BOTH
def test_nothing_to_attack_returns_nothing(threat: Threat) -> None:
    x, y = samples()
    with count_passes() as passes:
        assert torch.equal(Square(threat)(linear(), x[:0], y[:0], rng(0)), x[:0])
    assert passes.forward == 0


@BOTH
def test_no_budget_returns_the_images_exactly(threat: Threat) -> None:
    x, y = samples()
    x[0], x[1] = 0.0, 1.0
    assert torch.equal(Square(threat.with_eps(0), queries=20)(linear(), x, y, rng()), x)


@pytest.mark.parametrize(
    ("broken", "threat"), each_value((float("nan"), float("inf"), -float("inf"), float("nan")), THREATS)
)
def test_scores_that_are_no_numbers_do_not_lead_outside(broken: float, threat: Threat) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = linear()(x)
            return torch.where(x.flatten(1)[:, :1] > 0.5, broken, scores)

    x, y = samples()
    assert threat.allows(Square(threat, queries=20)(Broken(), x, y, rng()), x).all()


def test_a_linear_model_falls_as_soon_as_any_sign_pattern_can_fool_it() -> None:
    """The least reachable margin is w · x - eps |w|_1; where it is above zero nothing fools, else the search must."""
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x, y = torch.full((12, 1, 4, 4), 0.5, dtype=torch.float64), torch.zeros(12, dtype=torch.int64)
    reach = 0.1 * weight.abs().sum().item() - 0.5 * weight.sum().item()
    attack = Square(LINF, queries=400)
    assert fooled(Weighted(weight, reach * 0.999), attack(Weighted(weight, reach * 0.999), x, y, rng(12)), y).all()
    safe = Weighted(weight, reach + 1e-9)
    x_adv = attack(safe, x, y, rng(12))
    assert not fooled(safe, x_adv, y).any()
    torch.testing.assert_close(x_adv, x - 0.1 * weight.sign())


def test_in_l2_the_search_nears_the_optimum_of_a_linear_model() -> None:
    """Lowest margin at distance eps: -eps |w|_2.  Bumps are coarse, so the search gets close and not there."""
    row, column = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    weight = ((row / 3).cos() * (column / 2).sin())[None].double()
    x, y = torch.full((10, 1, 9, 9), 0.5, dtype=torch.float64), torch.zeros(10, dtype=torch.int64)
    optimum = 0.5 * weight.square().sum().sqrt()
    start, end = (Square(EUCLID, queries)(Weighted(weight, 1e3), x, y, rng(10)) for queries in (1, 500))
    gain = [((x - x_adv) * weight).flatten(1).sum(1) / optimum for x_adv in (start, end)]
    assert (gain[0] < 0.5).all() and (gain[1] > 0.6).all() and (gain[1] <= 1).all()
    torch.testing.assert_close(EUCLID.ball.size(end - x), torch.full((10,), 0.5, dtype=torch.float64))


@BOTH
def test_more_queries_and_restarts_find_no_less_than_noise(threat: Threat) -> None:
    x, _ = samples(200)
    y = linear()(x).argmax(1)
    noise, few, many = (
        fooled(linear(), attack(linear(), x, y, rng(200)), y).sum()
        for attack in (Noise(threat), Square(threat, 5), Square(threat, 100))
    )
    assert noise < many and few < many
    again = Square(threat, 5, restarts=4)(linear(), x, y, rng(200))
    assert fooled(linear(), again, y).sum() > few


def test_settings_out_of_range_raise() -> None:
    with pytest.raises(ConfigError, match="linf and l2 only"):
        Square(Threat(L1(1.0)))
    for wrong in ({"queries": 0}, {"restarts": 0}, {"p": 0.0}, {"p": 1.5}, {"p": float("nan")}):
        with pytest.raises(ConfigError, match="at least 1 query"):
            Square(LINF, **wrong)
