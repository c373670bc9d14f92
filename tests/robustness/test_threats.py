"""Threats: geometry checked against its definition, text that parses and prints back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hosnn.errors import ConfigError
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import L1, L2, Ball, Linf, format_eps, parse_eps
from hosnn.robustness.threats import NORMS, Threat

KINDS = pytest.mark.parametrize("kind", NORMS)


def perturbations(seed: int, batch: int, size: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(batch, 1, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def support(ball: Ball, direction: Tensor) -> Tensor:
    """max of <direction, p> over p in the ball: eps times the dual norm."""
    flat = direction.flatten(1)
    order = {Linf: 1, L2: 2, L1: float("inf")}[type(ball)]
    dual: Tensor = torch.linalg.vector_norm(flat, order, dim=1)
    return ball.eps * dual


@given(
    kind=st.sampled_from(NORMS),
    eps=st.one_of(st.just(0.0), st.floats(1e-6, 1)),
    seed=st.integers(0, 2**31),
    size=st.integers(1, 9),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
)
@settings(max_examples=150, deadline=None)
def test_projection_is_the_nearest_point_of_the_ball(
    kind: type[Ball], eps: float, seed: int, size: int, scale: float
) -> None:
    """P is nearest to d exactly if <d - P, p - P> <= 0 for every p of the (convex) ball: by its support function."""
    ball, delta = kind(eps), perturbations(seed, 4, size, scale)
    near = ball.project(delta)
    assert near.shape == delta.shape and (ball.size(near) <= eps * (1 + 1e-12) + 1e-13 * scale).all()
    residual = delta - near
    inner = (residual * near).flatten(1).sum(1)
    assert (support(ball, residual) - inner <= 1e-9 * max(1.0, scale**2)).all()


@given(kind=st.sampled_from(NORMS), eps=st.floats(0, 1), seed=st.integers(0, 2**31), scale=st.floats(0.01, 10))
@settings(max_examples=100, deadline=None)
def test_projection_is_idempotent_and_leaves_the_inside_alone(
    kind: type[Ball], eps: float, seed: int, scale: float
) -> None:
    ball, delta = kind(eps), perturbations(seed, 4, 6, scale)
    near = ball.project(delta)
    torch.testing.assert_close(ball.project(near), near, rtol=1e-12, atol=1e-13)
    inside = ball.size(delta) <= eps
    assert torch.equal(near[inside], delta[inside])


def test_l1_projection_equals_a_bisection() -> None:
    delta, eps = perturbations(0, 50, 7), 0.7
    low, high = torch.zeros(50, 1, 1).double(), delta.abs().amax((1, 2), keepdim=True)
    for _ in range(100):
        level = (low + high) / 2
        too_long = (delta.abs() - level).clamp(min=0).sum((1, 2), keepdim=True) > eps
        low, high = torch.where(too_long, level, low), torch.where(too_long, high, level)
    torch.testing.assert_close(L1(eps).project(delta), delta.sign() * (delta.abs() - high).clamp(min=0))


def test_l1_projection_shares_ties() -> None:
    delta = torch.tensor([[3.0, -3.0, 3.0], [0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    expected = torch.tensor([[1 / 3, -1 / 3, 1 / 3], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(L1(1.0).project(delta), expected)


@KINDS
def test_size_is_the_norm(kind: type[Ball]) -> None:
    delta = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert kind(1).size(delta).tolist() == [{Linf: 4.0, L2: 5.0, L1: 7.0}[kind], 0.0]


@KINDS
def test_steepest_is_a_unit_step_of_largest_first_order_gain(kind: type[Ball]) -> None:
    gradient, ball = perturbations(1, 20, 6), kind(1.0)
    step = ball.steepest(gradient)
    torch.testing.assert_close(ball.size(step), torch.ones(20).double())
    torch.testing.assert_close((step * gradient).flatten(1).sum(1), support(ball, gradient))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        still = torch.zeros(2, 3, dtype=dtype)
        assert torch.equal(ball.steepest(still), still)


@KINDS
def test_random_points_are_uniform_in_the_ball(kind: type[Ball]) -> None:
    """A ball of half the size holds 2^-d of the volume, and no direction is preferred."""
    ball = kind(0.3)
    points = ball.sample(torch.zeros(20000, 1, 2, dtype=torch.float64), SampleRandom(0, torch.arange(20000)))
    size = ball.size(points)
    assert (size <= 0.3 + 1e-12).all()
    assert (size <= 0.15).double().mean().item() == pytest.approx(0.25, abs=0.012)
    assert (size >= 0.3 * 0.95).double().mean().item() == pytest.approx(1 - 0.95**2, abs=0.008)
    for sign in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])):
        assert ((points[:, 0] * sign) > 0).all(1).double().mean().item() == pytest.approx(0.25, abs=0.012)
    assert (points[:, 0, 0].abs() < points[:, 0, 1].abs()).double().mean().item() == pytest.approx(0.5, abs=0.015)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_points_lie_inside_for_images_too(kind: type[Ball], dtype: torch.dtype) -> None:
    ball = kind(0.5)
    points = ball.sample(torch.zeros(20, 3, 8, 8, dtype=dtype), SampleRandom(1, torch.arange(20)))
    assert points.dtype is dtype and (ball.size(points) <= 0.5 * (1 + 1e-5)).all()
    assert (ball.size(points) > 0).all()


@given(kind=st.sampled_from(NORMS), eps=st.floats(0, 1), seed=st.integers(0, 2**31), scale=st.floats(0.01, 3))
@settings(max_examples=60, deadline=None)
def test_a_threats_projection_is_allowed_and_idempotent(kind: type[Ball], eps: float, seed: int, scale: float) -> None:
    threat = Threat(kind(eps))
    x = torch.rand(4, 1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = threat.project(x + perturbations(seed, 4, 6, scale), x)
    assert threat.allows(moved, x, atol=1e-12).all()
    torch.testing.assert_close(threat.project(moved, x), moved, rtol=0, atol=1e-12)
    assert torch.equal(threat.project(x, x), x)


def test_what_leaves_the_ball_or_the_domain_is_not_allowed() -> None:
    x = torch.full((4, 3), 0.95)
    x_adv = x + torch.tensor([[0.0] * 3, [0.0, 0.0, -0.2], [0.0, 0.0, 0.06], [0.0, float("nan"), 0.0]])
    assert Threat(Linf(0.1)).allows(x_adv, x).tolist() == [True, False, False, False]
    assert Threat(Linf(0.1), domain=None).allows(x_adv, x).tolist() == [True, False, True, False]


NAMES = {"linf": Linf, "l2": L2, "l1": L1}


@given(name=st.sampled_from(list(NAMES)), levels=st.integers(0, 255), per_step=st.booleans())
def test_grey_levels_parse_and_print_back(name: str, levels: int, per_step: bool) -> None:
    text = f"{name}:{levels}/255" + "/step" * per_step
    threat = Threat.parse(text)
    assert threat == Threat(NAMES[name](levels / 255), per_step=per_step)
    assert Threat.parse(str(threat)) == threat
    assert str(threat) == text or levels in (0, 255)


@given(name=st.sampled_from(list(NAMES)), eps=st.floats(0, 1), per_step=st.booleans())
def test_any_budget_prints_what_parses_back_to_it(name: str, eps: float, per_step: bool) -> None:
    threat = Threat(NAMES[name](eps), per_step=per_step)
    assert Threat.parse(str(threat)) == threat


@given(name=st.sampled_from(["l2", "l1"]), eps=st.one_of(st.integers(0, 10**6), st.floats(0, 1e300)))
def test_large_budgets_print_and_parse_back(name: str, eps: float) -> None:
    threat = Threat(NAMES[name](eps))
    assert Threat.parse(str(threat)) == threat


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("linf:8/255", Threat(Linf(8 / 255))),
        ("linf:8/255/step", Threat(Linf(8 / 255), per_step=True)),
        ("LINF:0.03", Threat(Linf(0.03))),
        (" l2:1/2 ", Threat(L2(0.5))),
        ("l1:12", Threat(L1(12))),
        ("l2:1e-3", Threat(L2(0.001))),
        ("linf:0", Threat(Linf(0.0))),
    ],
)
def test_text_parses_to_a_threat(text: str, threat: Threat) -> None:
    assert Threat.parse(text) == threat


@pytest.mark.parametrize(
    "text",
    [
        *("", "linf", "linf:", ":8/255", "8/255", "l3:1", "linf:abc", "linf:8/0", "linf:-1/255", "linf:8"),
        *("linf:nan", "linf:inf", "l2:1e400", "linf:8/255/foo", "linf:/step", "linf:8/255/step/step"),
        *("linf 8/255", "linf:8/255:step", "linf:0x8/255", "linf:__import__('os')", "linf:8//255"),
    ],
)
def test_other_text_raises(text: str) -> None:
    with pytest.raises(ConfigError, match="got"):
        Threat.parse(text)


@KINDS
@pytest.mark.parametrize("wrong", [-1e-9, float("nan"), float("inf"), "8/255", True])
def test_a_budget_that_is_no_length_raises(kind: type[Ball], wrong: float) -> None:
    with pytest.raises(ConfigError, match="eps"):
        kind(wrong)


def test_grey_levels_mistaken_for_a_fraction_raise_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="8/255 if you meant 8 grey levels"):
        Linf(8)


def test_eps_prints_as_people_write_it() -> None:
    printed = {
        8 / 255: "8/255",
        0.5: "1/2",
        0.03: "3/100",
        1 / 3: "85/255",
        0.0: "0",
        1.0: "1",
        0.123456789: "0.123456789",
    }
    for eps, text in printed.items():
        assert format_eps(eps) == text and parse_eps(text) == eps


def test_a_threat_can_be_rescaled() -> None:
    threat = Threat(Linf(0.1), domain=None, per_step=True)
    assert threat.scaled(0.5) == Threat(Linf(0.05), None, True)
    assert threat.with_eps(0.2) == Threat(Linf(0.2), None, True)


@pytest.mark.parametrize("text", ["8/", "/255", "1/0", "8//255", "1e5/x", ""])
def test_half_a_fraction_raises(text):
    with pytest.raises(ConfigError, match="a number or a fraction"):
        parse_eps(text)


def test_huge_exponents_are_answered_at_once():
    assert parse_eps("1e-999999999") == 0
