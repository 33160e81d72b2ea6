"""The surgeon's order and costs are those of brute force; what stays is the restricted least-squares solution."""

from __future__ import annotations

import pytest
import torch

from nasprune.sparse import restricted as restricted_module
from nasprune.sparse import surgeon
from nasprune.sparse.patterns import Pattern
from nasprune.sparse.restricted import restricted
from nasprune.sparse.surgeon import losses


def layer(features: int = 6, outputs: int = 3, groups: int = 1, seed: int = 0):
    """Weights (groups, F, O) and a Hessian (groups, F, F), float64."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(groups, 4 * features, features, generator=generator, dtype=torch.float64)
    mixed = rows @ torch.randn(groups, features, features, generator=generator, dtype=torch.float64)
    weights = torch.randn(groups, features, outputs, generator=generator, dtype=torch.float64)
    return weights, mixed.transpose(1, 2) @ mixed / (4 * features)


def loss(weights, hessian, other):
    gap = other - weights
    return float((gap * (hessian @ gap)).sum() / 2)


def best_without(weight, hessian, gone):
    """Of one output: the least loss with the features in `gone` zero, by normal equations, and the weights there."""
    stay = [feature for feature in range(len(weight)) if feature not in gone]
    found = torch.zeros_like(weight)
    if stay:
        found[stay] = torch.linalg.solve(hessian[stay][:, stay], hessian[stay] @ weight)
    return float((found - weight) @ hessian @ (found - weight) / 2), found


def greedy(weight, hessian, units):
    """Brute force: at every step the unit whose loss rises least; units in order, and losses after each."""
    gone, order, after = [], [], []
    while len(order) < len(units):
        left = [unit for unit in range(len(units)) if unit not in order]
        tried = {unit: best_without(weight, hessian, [*gone, *units[unit]])[0] for unit in left}
        unit = min(tried, key=tried.get)
        gone += units[unit]
        order.append(unit)
        after.append(tried[unit])
    return order, after


@pytest.mark.parametrize("size", [1, 2])
def test_order_and_costs_are_those_of_brute_force(size):
    weights, hessian = layer(groups=2)
    pattern = Pattern(size=size)
    units = pattern.units(6, 1).tolist()
    found = losses(weights, hessian, pattern, 1, exact=True)
    for group in range(2):
        for output in range(3):
            order, after = greedy(weights[group, :, output], hessian[group], units)
            rises = torch.tensor([0.0, *after]).double().diff().cummax(0).values
            worth = found[group, :, output][[units[unit][0] for unit in order]]
            assert torch.allclose(worth, rises, rtol=1e-6)


def test_several_at_a_time_cost_what_they_cost_together():
    weights, hessian = layer(features=128, outputs=2)
    found = losses(weights, hessian, Pattern(), 1)  # two at a time
    total = loss(weights, hessian, torch.zeros_like(weights))
    assert float(found.sum()) >= total * (1 - 1e-6)  # raised to the highest before, so not below
    first = found[0, :, 0].sort().values[:2].sum()
    gone = found[0, :, 0].argsort()[:2].tolist()
    assert float(first) == pytest.approx(best_without(weights[0, :, 0], hessian[0], gone)[0], rel=1e-6)


def test_what_stays_is_the_restricted_least_squares_solution():
    weights, hessian = layer(groups=2)
    mask = torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[0, :, 0] = False
    found = restricted(hessian, weights, mask)
    for group, output in ((0, 0), (0, 1), (1, 2)):
        gone = (~mask[group, :, output]).nonzero().flatten().tolist()
        expected = best_without(weights[group, :, output], hessian[group], gone)[1]
        assert torch.allclose(found[group, :, output], expected)
    assert not found[~mask].any()


def test_conjugate_gradients_come_to_the_same(monkeypatch):
    weights, hessian = layer(features=24, outputs=5, groups=2)
    hessian += torch.eye(24, dtype=torch.float64)
    mask = torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    exact = restricted(hessian, weights, mask)
    monkeypatch.setattr(restricted_module, "EXACT", 0)
    monkeypatch.setattr(restricted_module, "STEPS", 200)
    monkeypatch.setattr(restricted_module, "SLOWER", 1e9)
    near = restricted(hessian, weights, mask)
    assert not near[~mask].any()
    assert float((near - exact).norm() / exact.norm()) < 1e-3


def test_chunks_of_outputs_change_nothing(monkeypatch):
    weights, hessian = layer(features=8, outputs=7)
    mask = torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    whole, order = restricted(hessian, weights, mask), losses(weights, hessian, Pattern(), 1)
    monkeypatch.setattr(restricted_module, "MEMORY", 100)
    monkeypatch.setattr(surgeon, "MEMORY", 100)
    assert torch.allclose(restricted(hessian, weights, mask), whole)
    assert torch.allclose(losses(weights, hessian, Pattern(), 1), order)


def test_stages_lose_less_than_magnitude(monkeypatch):
    weights, hessian = layer(features=48, outputs=8)
    monkeypatch.setattr(surgeon, "WORK", 0)
    staged = losses(weights, hessian, Pattern(), 1)
    for kept in (200, 100, 40):
        reached = [
            loss(weights, hessian, restricted(hessian, weights, Pattern().mask(scores, kept, 1)))
            for scores in (staged, weights.square())
        ]
        assert reached[0] < reached[1]


@pytest.mark.parametrize("pattern", [Pattern(), Pattern(size=2)])
def test_stages_that_end_with_outputs_on_their_own_lose_little_more_than_weight_by_weight(monkeypatch, pattern):
    weights, hessian = layer(features=96, outputs=8, groups=2)
    hessian += 0.02 * hessian.diagonal(dim1=1, dim2=2).mean() * torch.eye(96)  # features of networks are less alike
    best = losses(weights, hessian, pattern, 1)
    monkeypatch.setattr(surgeon, "WORK", 0)
    monkeypatch.setattr(surgeon, "REST", 2 * 8 * 96**3 // 24)
    found = losses(weights, hessian, pattern, 1)
    assert not torch.equal(found, best)
    for kept, most in ((600, 1.25), (300, 1.05), (150, 1.05)):
        ours, theirs = (
            loss(weights, hessian, restricted(hessian, weights, pattern.mask(scores, kept, 1)))
            for scores in (found, best)
        )
        assert ours <= most * theirs


def test_outputs_without_weights_left_after_stages_are_no_trouble(monkeypatch):
    weights, hessian = layer(features=24, outputs=6)
    weights[0, :, 0] *= 1e-6
    monkeypatch.setattr(surgeon, "WORK", 0)
    monkeypatch.setattr(surgeon, "REST", 6 * 24**3 // 64)
    found = losses(weights, hessian, Pattern(), 1)
    assert bool(found.isfinite().all())
    assert float(found[0, :, 0].max()) < float(found[0, :, 1:].max())


def test_two_of_four_is_held_and_better_than_magnitude():
    weights, hessian = layer(features=32, outputs=4)
    pattern = Pattern.parse("2:4")
    reached = []
    for scores in (losses(weights, hessian, pattern, 1), weights.square()):
        mask = pattern.mask(scores, 0, 1)
        assert (mask.reshape(1, 8, 4, 4).sum(2) == 2).all()
        reached.append(loss(weights, hessian, restricted(hessian, weights, mask)))
    assert reached[0] < reached[1]
