"""What tests of refitting share: an input, an error and a residual branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT = (1, 3, 8, 8)


def error(dense: nn.Module, small: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((dense(x) - small(x)).square().mean())


class Branch(nn.Module):
    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.a, self.b = pointwise(kind, width, 12), pointwise(kind, 12, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x).relu())


def pointwise(kind: str, wide: int, out: int) -> nn.Module:
    return getattr(nn, kind)(wide, out, 1) if kind.startswith("Conv") else nn.Linear(wide, out)
