from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasprune.errors import BudgetError
from nasprune.space import pareto
from nasprune.space.pareto import knapsack, undominated


def least_harm(options, limits):
    """By enumeration; `None` where no selection keeps the limits."""
    harms = [
        sum(harm for _, harm in picked)
        for picked in itertools.product(*options)
        if all(sum(costs[i] for costs, _ in picked) <= limit for i, limit in enumerate(limits))
    ]
    return min(harms, default=None)


def instances(limits: int):
    costs = st.tuples(*[st.integers(0, 9)] * limits)
    harm = st.integers(0, 6).map(float) | st.floats(0, 6, allow_nan=False)
    items = st.lists(st.lists(st.tuples(costs, harm), min_size=1, max_size=4), min_size=0, max_size=5)
    return st.tuples(items, st.tuples(*[st.integers(0, 30)] * limits))


@pytest.mark.parametrize("limits", [1, 2, 3])
def test_the_knapsack_is_optimal(limits):
    @given(instances(limits))
    def check(instance):
        options, bounds = instance
        best = least_harm(options, bounds)
        if best is None:
            with pytest.raises(BudgetError, match="no selection"):
                knapsack(options, bounds)
            return
        picked = [item[i] for item, i in zip(options, knapsack(options, bounds), strict=True)]
        assert all(sum(costs[i] for costs, _ in picked) <= bound for i, bound in enumerate(bounds))
        assert sum(harm for _, harm in picked) == pytest.approx(best, rel=1e-9, abs=1e-9)

    check()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_undominated_keeps_one_of_each_best_row(rows):
    costs, harm = np.array([row[:2] for row in rows]), np.array([float(row[2]) for row in rows])
    best = {row for row in rows if not any(other != row and all(np.less_equal(other, row)) for other in rows)}
    kept = [rows[i] for i in undominated(costs, harm).tolist()]
    assert sorted(kept) == sorted(best)


def test_without_limits_each_item_takes_its_least_harm():
    assert knapsack([[((), 2.0), ((), 1.0)], [((), 0.0), ((), 3.0)]], ()) == [1, 0]


def test_large_costs_are_compared_exactly():
    huge = 2**55
    assert knapsack([[((huge + 1,), 0.0), ((huge,), 1.0)]], (huge,)) == [1]


@pytest.mark.parametrize("limits", [1, 2])
def test_thinned_states_keep_the_limits_and_stay_near_the_optimum(limits, monkeypatch):
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 10**6, (12, 8, limits))
    harm = 3 - (costs / 10**6).mean(axis=2) + rng.random((12, 8))
    options = [[(tuple(c), float(h)) for c, h in zip(*item, strict=True)] for item in zip(costs, harm, strict=True)]
    bounds = [4 * 10**6] * limits

    def total(picked):
        assert (sum(costs[i, o] for i, o in enumerate(picked)) <= bounds).all()
        return sum(harm[i, o] for i, o in enumerate(picked))

    exact = total(knapsack(options, bounds))
    monkeypatch.setattr(pareto, "STATES", 30)
    monkeypatch.setattr(pareto, "ROUGH", 10)
    assert exact <= total(knapsack(options, bounds)) <= 1.02 * exact
