"""Budgets in words."""

import pytest

from hosnn.report.phrases import budget, size


@pytest.mark.parametrize(
    ("threat", "text"),
    [
        ("linf:8/255", "8/255"),
        ("linf:8/255/step", "8/255 per time step"),
        ("l2:1/2", "l2 1/2"),
        ("linf:8/255@8bit", "8/255 (8-bit images)"),
        ("events:20/8", "20 events"),
        ("events:1500", "1,500 events"),
    ],
)
def test_a_budget_is_that_of_its_threat(threat: str, text: str) -> None:
    assert budget(threat) == text


def test_sizes_of_a_curve_are_in_the_unit_of_the_threat() -> None:
    assert [size(eps, "events:20/8") for eps in (5 / 8, 20 / 8)] == ["5 events", "20 events"]
    assert size(4 / 255, "linf:8/255") == "4/255"
