"""Intervals of medians hold the median as often as they say, whatever the distribution."""

from __future__ import annotations

import random
from math import inf

import pytest

from nasprune.cost.intervals import median_interval


@pytest.mark.parametrize("count", [6, 9, 25, 60])
def test_the_median_lies_inside_but_for_the_chance(count: int) -> None:
    """Of a skewed distribution whose median is 1."""
    rng, missed = random.Random(count), 0
    for _ in range(1000):
        low, high = median_interval([2.0 ** (rng.expovariate(1) / 0.6931471805599453 - 1) for _ in range(count)])
        missed += not low <= 1 <= high
    assert missed <= 65  # 50 are expected at most, with a standard deviation of 7


def test_it_narrows_and_takes_no_order_for_granted() -> None:
    values = [float(n) for n in range(100)]
    random.Random(0).shuffle(values)
    low, high = median_interval(values)
    assert (low, high) == (39.0, 60.0)  # as in tables of the binomial distribution


@pytest.mark.parametrize("count", range(6))
def test_too_few_values_say_nothing(count: int) -> None:
    assert median_interval([1.0] * count) == (-inf, inf)
