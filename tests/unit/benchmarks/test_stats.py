"""Medians, intervals and ratios."""

from __future__ import annotations

import random
from statistics import median

import pytest

from benchmarks.stats import median_interval, ratios


def test_five_values_reach_from_the_lowest_to_the_highest() -> None:
    found = median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (found.median, found.low, found.high, found.count) == (3.0, 1.0, 5.0, 5)
    assert found.coverage == pytest.approx(1 - 2 / 32)


def test_many_values_leave_the_outermost_off() -> None:
    found = median_interval([float(n) for n in range(1, 31)])
    assert found.median == 15.5
    assert (found.low, found.high) == (10.0, 21.0)
    assert 0.95 <= found.coverage < 0.96


def test_one_value_is_its_own_interval_and_worth_nothing() -> None:
    found = median_interval([2.0])
    assert (found.low, found.median, found.high, found.coverage) == (2.0, 2.0, 2.0, 0.0)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(7)
    rounds, held, promised = 2000, 0, 0.0
    for _ in range(rounds):
        found = median_interval([chance.expovariate(1.0) for _ in range(9)])
        held += found.low <= 0.6931 <= found.high
        promised = found.coverage
    assert held / rounds == pytest.approx(promised, abs=0.02)
    assert median([found.low, found.high]) > 0


def test_no_values_and_half_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        median_interval([])
    with pytest.raises(ValueError, match="not pairs"):
        ratios([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="measured nothing"):
        ratios([1.0], [0.0])
    assert ratios([3.0, 1.0], [2.0, 4.0]) == [1.5, 0.25]
