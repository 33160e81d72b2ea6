"""How the scores that several coupled producers give a unit become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from nasprune.errors import InputError

Reduction = Literal["sum", "mean", "max"]

_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda stacked: stacked.sum(dim=0),
    "mean": lambda stacked: stacked.mean(dim=0),
    "max": lambda stacked: stacked.amax(dim=0),
}


def check_reduction(reduce: str) -> None:
    """Raises InputError unless `reduce` is "sum", "mean" or "max"."""
    if reduce not in _REDUCE:
        raise InputError(f"`reduce` must be one of {', '.join(_REDUCE)}, got {reduce!r}")


def reduced(per_tensor: Iterable[Tensor], reduce: Reduction, width: int) -> Tensor:
    """Combines scores (width,) of several tensors into one (width,); zeros where there are none."""
    stacked = list(per_tensor)
    return _REDUCE[reduce](torch.stack(stacked)) if stacked else torch.zeros(width)
