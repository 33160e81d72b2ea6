"""How many weights stay where: the least harm within the limit, all of which is used."""

from __future__ import annotations

import itertools

import pytest
import torch

from nasprune.sparse.shares import LayerHarms, lowest_first, spread


def test_the_least_harm_of_all_spreads_within_the_limit():
    layers = {
        "a": LayerHarms(100, 1, {50: 0.1, 25: 0.4, 10: 2.0}, whole=True),
        "b": LayerHarms(200, 3, {100: 0.05, 50: 0.1, 20: 0.6}, whole=True),
    }
    kept = spread(layers, 300)
    options = [layer.options() for layer in layers.values()]
    best = min((a[1] + b[1], a[0], b[0]) for a, b in itertools.product(*options) if a[0] + 3 * b[0] <= 300)
    assert (kept["a"], kept["b"]) == best[1:]


def test_what_options_leave_over_is_given_away():
    layers = {name: LayerHarms(1000, 1, {500: 0.1, 250: 0.5, 100: 2.0}) for name in "ab"}
    assert sum(spread(layers, 777).values()) == 777
    assert spread(layers, 5000) == {"a": 1000, "b": 1000}


def test_the_limit_is_used_where_harms_do_not_fall():
    flat = LayerHarms(1000, 1, dict.fromkeys((600, 400, 250, 100), 0.1))
    assert spread({"a": flat}, 555) == {"a": 555}
    assert spread({"a": flat, "b": LayerHarms(50, 1, {40: 0.5})}, 999) == {"a": 949, "b": 50}


def test_harm_between_options_is_that_of_the_smaller_one():
    layer = LayerHarms(100, 1, {50: 0.1, 25: 0.4}, whole=True)
    assert [layer.at(count) for count in (100, 60, 25)] == [0.0, 0.1, 0.4]


def test_one_threshold_for_all_layers():
    scores = {"a": torch.tensor([5.0, 1.0, 3.0]), "b": torch.tensor([4.0, 2.0])}
    assert lowest_first(scores, {"a": 1, "b": 1}, {"a": 1, "b": 1}, 3) == {"a": 2, "b": 1}
    assert lowest_first(scores, {"a": 1, "b": 1}, {"a": 1, "b": 10}, 12) == {"a": 3, "b": 0}


@pytest.mark.parametrize("limit", [30, 100, 1999])
def test_limits_are_kept(limit):
    layers = {name: LayerHarms(1000, price, {500: 0.1, 100: 0.5, 10: 2.0}) for name, price in (("a", 1), ("b", 2))}
    kept = spread(layers, limit)
    assert kept["a"] + 2 * kept["b"] <= limit
