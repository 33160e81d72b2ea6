"""How sure a median is: the interval that holds it whatever the distribution, from the order of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf

CHANCE = 0.05
"""That an interval misses the median."""


def median_interval(values: Sequence[float], chance: float = CHANCE) -> tuple[float, float]:
    """Two of the values between which the true median lies, but for `chance`; everything where there are too few.

    Each value lies above the median with probability 1/2, so that how many do is binomial (Thompson 1936,
    doi:10.1214/aoms/1177732563). Values are as good as independent.

    >>> median_interval([3.0, 1.0, 2.0])
    (-inf, inf)
    >>> median_interval([5.0, 3.0, 1.0, 2.0, 4.0, 6.0])
    (1.0, 6.0)
    """
    count, below, left_out = len(values), 0.0, 0
    while left_out < count // 2 and 2 * (below + comb(count, left_out) / 2**count) <= chance:
        below += comb(count, left_out) / 2**count
        left_out += 1
    if not left_out:
        return -inf, inf
    ordered = sorted(values)
    return ordered[left_out - 1], ordered[-left_out]
