import pytest

from hosnn.evaluation.statistics import wilson


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
