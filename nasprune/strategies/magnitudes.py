"""How large a weight is among those of its own layer, so that layers can be weighed against each other."""

from __future__ import annotations

import torch
from torch import Tensor


def lamp_scores(weight: Tensor) -> Tensor:
    """The square of each element as a share of the sum of those that are not smaller, of the shape of `weight`.

    Lee, Park, Mo, Ahn, Shin 2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv:2010.07611. One
    threshold over layers of different sizes then keeps the layers' losses alike; the largest element of each has 1.
    """
    squares, order = weight.detach().double().square().flatten().sort(descending=True, stable=True)
    shares = squares / squares.cumsum(0).clamp(min=1e-300)
    return torch.empty_like(shares).scatter_(0, order, shares).view(weight.shape)
