"""How much two orders of the same candidates agree: within each choice, averaged over the choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor

Values = Mapping[str, Sequence[float]]
"""Choice -> one number for each candidate."""


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b, in [-1, 1]; `None` where either is constant (Kendall 1945, Biometrika 33)."""
    first, second = _signs(one), _signs(other)
    scale = float((first.abs().sum() * second.abs().sum()) ** 0.5)
    return float((first * second).sum()) / scale if scale else None


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's correlation of ranks, ties sharing theirs, in [-1, 1]; `None` where either is constant."""
    first, second = (ranks - ranks.mean() for ranks in (_ranks(one), _ranks(other)))
    scale = float((first.square().sum() * second.square().sum()) ** 0.5)
    return float((first * second).sum()) / scale if scale else None


def agreement(one: Values, other: Values, measure: Callable[[Sequence[float], Sequence[float]], float | None]) -> float:
    """The mean of `measure` over the choices where it is defined; 0 where that is nowhere."""
    found = [measure(one[name], other[name]) for name in one]
    return mean([value for value in found if value is not None] or [0.0])


def _signs(values: Sequence[float]) -> Tensor:
    """(n, n): whether each is above each other, at it, or below."""
    column = torch.tensor(list(values), dtype=torch.float64, device="cpu")
    return (column[:, None] - column[None, :]).sign()


def _ranks(values: Sequence[float]) -> Tensor:
    """(n,): how many are below each, ties counting half."""
    return _signs(values).sum(1) / 2
