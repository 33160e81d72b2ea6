"""Net-Trim's solution fulfils the conditions of the convex program: allowed, and no direction lowers the sum."""

from __future__ import annotations

import pytest
import torch

from nasprune.errors import InputError
from nasprune.sparse.nettrim import net_trim


def layer(rectified: bool, epsilon: float = 0.1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(10, 3, generator=generator, dtype=torch.float64)
    y = y.relu() if rectified else y
    return x, y, net_trim(x, y, epsilon, rectified=rectified, steps=20_000)


@pytest.mark.parametrize("rectified", [False, True])
def test_the_conditions_of_the_program_hold(rectified):
    x, y, found = layer(rectified)
    scale = x.square().sum(0).mean().sqrt()
    u = found.solution
    active = y > 0 if rectified else torch.ones_like(y, dtype=torch.bool)
    off, radius = torch.where(active, x @ u - y, 0.0), 0.1 * y.norm(dim=0)
    assert (off.norm(dim=0) <= radius * 1.001).all()
    assert float((x @ u)[~active].max() if rectified else 0.0) <= 1e-3 * float(y.abs().max())
    # the multiplier of u = v is a subgradient of the absolute sum, and balances that of X u = z
    assert (found.weights.abs() <= 1.001).all()
    assert torch.allclose(found.weights[u != 0], u[u != 0].sign(), atol=1e-3)
    assert torch.allclose((x / scale).T @ found.rows, -found.weights, atol=1e-3)
    # that of X u = z is normal to what is allowed: along what is off, and never below zero elsewhere
    along = torch.where(active, found.rows, 0.0)
    cosine = (along * off).sum(0) / (along.norm(dim=0) * off.norm(dim=0))
    assert (cosine > 0.999).all()
    assert float(found.rows[~active].min() if rectified else 0.0) >= -1e-3
    slack = (x @ u)[~active] < -1e-2
    assert float(found.rows[~active][slack].abs().max() if slack.any() else 0.0) < 1e-2


def test_more_distance_makes_more_zeros():
    zeros = [int((layer(rectified=False, epsilon=epsilon)[2].solution == 0).sum()) for epsilon in (0.01, 0.3, 0.8)]
    assert zeros == sorted(zeros)
    assert zeros[0] < zeros[-1]


def test_distances_are_above_zero():
    with pytest.raises(InputError, match="`epsilon` must be above 0"):
        net_trim(torch.ones(2, 2), torch.ones(2, 1), 0.0, rectified=False)
