"""A net of many structures, images for it, and single layers as contexts."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from nasprune.data import ArrayDataset
from nasprune.run.trace import trace


class Mixed(nn.Module):
    """Residual stream, grouped and depthwise layers, a concat read twice, and a flatten; (N, 3, 8, 8) -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.split = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.side = nn.Conv2d(8, 6, 1, stride=2)
        self.join = nn.Conv2d(30, 6, 1)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.inner(x)
        y = self.depth(self.split(x).relu()).relu()
        z = self.join(torch.cat([y, self.side(x), y], 1)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(z, 2).flatten(1))


class Chain(nn.Module):
    """conv -> ReLU -> conv -> mean -> linear, and nothing else; (N, 3, 6, 6) -> (N, 4)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


@functools.cache
def mixed():
    """The net and its graph; shared, so nothing may change them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Mixed().eval()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    return model, trace(model, torch.zeros(1, 3, 8, 8))


@functools.cache
def chain():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Chain().eval()
    return model, trace(model, torch.zeros(1, 3, 6, 6))


def pictures(side: int, classes: int, count: int = 24) -> ArrayDataset:
    generator = torch.Generator().manual_seed(9)
    return ArrayDataset(torch.randn(count, 3, side, side, generator=generator), torch.arange(count) % classes)
