from itertools import combinations, product

import pytest

from tests.covering import each_pair, each_value

FACTORS = [("abcde", "xy", [0, 1], [0, 1]), ("ab", "xyz"), (range(34), "xy", "pq", "rs")]


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_each_pair_of_values_occurs(factors: tuple[list[object], ...]) -> None:
    rows = each_pair(*factors)
    for first, second in combinations(range(len(factors)), 2):
        assert {(row[first], row[second]) for row in rows} == set(product(factors[first], factors[second]))
    assert len(rows) <= 1.2 * max(len(one) * len(other) for one, other in combinations(factors, 2)) + 1


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_each_value_occurs(factors: tuple[list[object], ...]) -> None:
    rows = each_value(*factors)
    assert len(rows) == max(map(len, factors))
    for position, values in enumerate(factors):
        assert {row[position] for row in rows} == set(values)
