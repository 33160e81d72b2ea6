"""Clouds are turned and not bent, and the budget keeps a tenth of the weights."""

from __future__ import annotations

import torch

from benchmarks.sparse_points import share_of_numbers, turned
from nasprune.models import pointnet


def test_turned_clouds_keep_their_distances() -> None:
    clouds = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(0))
    found = turned(clouds, torch.Generator().manual_seed(1))
    before, after = (torch.cdist(one.mT, one.mT) for one in (clouds, found))
    assert torch.allclose(before, after, atol=1e-4)
    assert float((found - clouds).abs().mean()) > 0.1


def test_biases_and_norms_stay_beside_a_tenth_of_the_weights() -> None:
    net = pointnet()
    numbers = sum(parameter.numel() for parameter in net.parameters())
    weights = sum(parameter.numel() for parameter in net.parameters() if parameter.ndim > 1)
    budget = float(share_of_numbers(net).removesuffix("%NNZ")) / 100 * numbers
    assert abs(budget - (numbers - 0.9 * weights)) < 2
