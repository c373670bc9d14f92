"""Intervals and tests against published values, values by hand, and each other."""

import math

import numpy as np
import pytest

from hosnn.errors import ConfigError
from hosnn.results.statistics import bootstrap_interval, holm, mcnemar, paired_interval, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),  # z²/(n + z²)
        (10, 10, 0.72247, 1.0),
        (81, 263, 0.25525, 0.36621),  # Newcombe 1998, table I: .2553, .3662
        (15, 148, 0.06238, 0.16052),  # .0624, .1605
        (1, 29, 0.00612, 0.17176),  # .0061, .1718
    ],
)
def test_wilsons_interval_equals_published_values(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=2e-4)


def test_nothing_measured_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("first_only", "second_only", "exact", "mid"),
    [
        (1, 7, 0.0703125, 0.0390625),  # Bentur et al., in Fagerland et al. 2013: .070, .039
        (0, 5, 2 / 32, 1 / 32),
        (0, 0, 1.0, 0.5),
        (2, 3, 1.0, 1 - 10 / 32),
        (2, 2, 1.0, 1 - 6 / 32),
        (0, 1, 1.0, 0.5),
        (5, 15, 2 * 21700 / 2**20, (2 * 21700 - 15504) / 2**20),  # 1 + 20 + 190 + 1140 + 4845 + 15504 ways
    ],
)
def test_mcnemar_equals_values_by_hand(first_only: int, second_only: int, exact: float, mid: float) -> None:
    for pair in ((first_only, second_only), (second_only, first_only)):
        assert mcnemar(*pair) == pytest.approx(exact, rel=1e-12)
        assert mcnemar(*pair, mid=True) == pytest.approx(mid, rel=1e-12)


def test_mcnemar_of_many_samples_is_near_the_normal_approximation() -> None:
    """Also where a probability is too small for a float's powers of 1/2."""
    for fewer, more in ((4900, 5100), (4800, 5200)):
        z = (more - fewer - 1) / math.sqrt(fewer + more)
        assert mcnemar(fewer, more) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=5e-3)
    assert 0 < mcnemar(0, 900) < 1e-200


def test_mcnemar_falls_as_the_models_part() -> None:
    found = [mcnemar(10 - gap, 10 + gap) for gap in range(11)]
    assert found == sorted(found, reverse=True) and found[0] == 1


@pytest.mark.parametrize(("first_only", "second_only", "samples"), [(60, 30, 1000), (5, 5, 200), (0, 12, 300)])
def test_the_bootstrap_and_the_closed_form_agree(first_only: int, second_only: int, samples: int) -> None:
    closed, drawn = (interval(first_only, second_only, samples) for interval in (paired_interval, bootstrap_interval))
    assert closed == pytest.approx(drawn, abs=4 / samples)
    difference = (first_only - second_only) / samples
    assert closed.low < difference < closed.high and drawn.low < difference < drawn.high


def test_the_paired_interval_equals_a_value_by_hand_and_turns_with_the_models() -> None:
    """Bonett & Price: b = 1, c = 7, n = 21: p̃ = 2/23, q̃ = 8/23."""
    low, high = paired_interval(1, 7, 21)
    half = 1.959964 * math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    assert (low, high) == pytest.approx((-6 / 23 - half, -6 / 23 + half), rel=1e-6)
    assert paired_interval(7, 1, 21) == pytest.approx((-high, -low))


def test_models_that_never_disagree_are_still_not_known_to_be_equal() -> None:
    low, high = paired_interval(0, 0, 100)
    assert -0.05 < low < 0 < high < 0.05
    assert bootstrap_interval(0, 0, 100) == (0, 0)
    assert paired_interval(0, 0, 0) == (-1, 1)


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    """Of 300 experiments with a true difference of 0.1, close to 95 % of the intervals hold it; both kinds."""
    drawn = np.random.default_rng(0).multinomial(400, [0.2, 0.1, 0.7], size=300)
    counts = [(int(b), int(c)) for b, c, _ in drawn]
    for held in (
        [bootstrap_interval(b, c, 400, resamples=1000) for b, c in counts],
        [paired_interval(b, c, 400) for b, c in counts],
    ):
        assert sum(low <= 0.1 <= high for low, high in held) / 300 == pytest.approx(0.95, abs=0.03)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    assert bootstrap_interval(30, 20, 500, seed=1) == bootstrap_interval(30, 20, 500, seed=1)
    seeds = {bootstrap_interval(30, 20, 500, seed=seed, resamples=200) for seed in range(5)}
    assert len(seeds) > 1


def test_holm_equals_values_by_hand_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == [0.04] and holm([]) == []
    assert holm([0.9, 0.5]) == [1.0, 1.0]


def test_counts_that_cannot_be_are_refused() -> None:
    for wrong in (lambda: mcnemar(-1, 2), lambda: paired_interval(3, 4, 5), lambda: bootstrap_interval(-1, 0, 5)):
        with pytest.raises(ConfigError, match="at least 0"):
            wrong()
    with pytest.raises(ConfigError, match="at least 1"):
        bootstrap_interval(0, 0, 0)
    with pytest.raises(ConfigError, match="p-values"):
        holm([0.1, 1.1])
