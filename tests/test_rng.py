"""Random numbers by (seed, purpose, sample index): uniform, independent, and blind to the batch."""

import pytest
import torch
from torch import Tensor

from hosnn.rng import SampleRandom

MANY = 4000


def streams(seed: int = 0, count: int = MANY) -> SampleRandom:
    return SampleRandom(seed, torch.arange(count))


def like(count: int = MANY, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(count, *(shape or (25,)), dtype=dtype)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_uniform_numbers_are_uniform_and_below_one(seed: int) -> None:
    u = streams(seed).uniform(like()).double()
    assert (u >= 0).all() and (u < 1).all()
    assert u.mean().item() == pytest.approx(1 / 2, abs=0.004)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    counts = (u.flatten() * 16).long().bincount(minlength=16) / u.numel()
    assert (counts - 1 / 16).abs().max() < 0.005


def test_neighbouring_samples_and_positions_are_uncorrelated() -> None:
    u = streams().uniform(like()).double() - 0.5
    for first, second in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u[:-2], u[2:])):
        assert abs((first * second).mean().item()) * 12 < 0.015
    assert len(set(u[:, 0].tolist())) > 0.99 * MANY, "every sample has its own stream"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_one_in_every_precision(dtype: torch.dtype) -> None:
    u = streams().uniform(like(dtype=dtype))
    assert u.dtype is dtype and (u >= 0).all() and (u < 1).all()
    assert u.double().mean().item() == pytest.approx(0.5, abs=0.006)


def test_float64_gets_the_numbers_of_float32() -> None:
    assert torch.equal(streams().uniform(like()).double(), streams().uniform(like(dtype=torch.float64)))


@pytest.mark.parametrize("draw", [SampleRandom.uniform, SampleRandom.normal, SampleRandom.sign])
def test_a_sample_draws_the_same_in_any_batch(draw: object) -> None:
    assert callable(draw)
    whole = draw(streams(count=10), like(10, 2, 3))
    for rows in (torch.tensor([7]), torch.tensor([9, 0, 4]), torch.arange(10) % 2 == 0):
        part = streams(count=10).subset(rows)
        assert torch.equal(draw(part, like(len(part.index), 2, 3)), whole[rows])
    assert torch.equal(draw(streams(count=10), like(10, 2, 3)), whole)


def test_a_longer_draw_begins_with_the_shorter() -> None:
    assert torch.equal(streams().uniform(like(MANY, 30))[:, :20], streams().uniform(like(MANY, 20)))


def test_fold_gives_other_numbers_for_every_purpose_and_the_same_for_one() -> None:
    rng = streams(count=50)
    draws = [
        folded.uniform(like(50))
        for folded in (
            rng,
            rng.fold("start"),
            rng.fold("restart", 1),
            rng.fold("restart", 2),
            rng.fold("restart").fold(1),
            rng.fold("1"),
            rng.fold(1),
            streams(1, 50).fold("start"),
        )
    ]
    for number, first in enumerate(draws):
        for second in draws[number + 1 :]:
            assert (first == second).double().mean() < 0.01
            assert abs(((first - 0.5) * (second - 0.5)).mean().item()) * 12 < 0.15
    assert torch.equal(rng.fold("start").uniform(like(50)), draws[1])


def test_normal_numbers_are_normal() -> None:
    z = streams().normal(like()).double()
    assert z.isfinite().all()
    assert z.mean().item() == pytest.approx(0, abs=0.015) and z.std().item() == pytest.approx(1, abs=0.01)
    assert (z.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.006)
    assert (z.abs() > 3).double().mean().item() == pytest.approx(0.0027, abs=0.001)


def test_signs_are_fair() -> None:
    s = streams().sign(like())
    assert set(s.flatten().tolist()) == {-1.0, 1.0}
    assert s.mean().item() == pytest.approx(0, abs=0.015)


def test_drawing_leaves_torchs_own_generator_alone() -> None:
    state = torch.get_rng_state()
    streams().normal(like())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_normal_numbers_are_those_of_float32_in_every_precision(dtype: torch.dtype) -> None:
    """Eight bits of a uniform number end at 2.7 standard deviations above, and at 5.4 below."""
    exact, z = streams().normal(like(dtype=torch.float64)), streams().normal(like(dtype=dtype))
    assert z.dtype is dtype and torch.equal(z, exact.to(dtype))
    assert torch.equal(exact.float(), streams().normal(like()))
    assert z.double().max().item() == pytest.approx(-z.double().min().item(), abs=1.0)
