"""Scores from an order of removal, for criteria that take units away one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def removal_scores(order: Sequence[int], damage: Sequence[float]) -> Tensor:
    """Scores (width,), float32, strictly rising along `order`: the damage done up to and with each removal.

    Keeping the best k by these scores is what is left after the first width - k removals.

    Args:
        order: every unit once, the first to go first.
        damage: what each of these removals adds; below zero counts as zero.
    """
    total = np.cumsum(np.maximum(np.asarray(damage, dtype=np.float64), 0.0)).astype(np.float32)
    scores = torch.empty(len(order), device="cpu")
    last = np.float32(0)
    for unit, value in zip(order, total, strict=True):
        last = max(value, np.nextafter(last, np.float32(np.inf)))
        scores[unit] = float(last)
    return scores
