"""A small supernet in the plain style that most have: cells with a list of edges, each a list of candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

OPS = ("none", "skip", "conv1", "conv3")


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)


def conv(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels)
    )


def candidates(channels: int) -> nn.ModuleList:
    return nn.ModuleList([Zero(), nn.Identity(), conv(channels, 1), conv(channels, 3)])


class Cell(nn.Module):
    """Nodes 0 -> 1, 0 -> 2, 1 -> 2; the output is node 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(candidates(channels) for _ in range(3))

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        def edge(number: int, inputs: Tensor) -> Tensor:
            return sum(w * op(inputs) for w, op in zip(shares[number], self.edges[number], strict=True))  # type: ignore[return-value]

        middle = edge(0, x)
        return edge(1, x) + edge(2, middle)


class Toy(nn.Module):
    """Two cells that share their architecture weights. alphas: (3 edges, 4 candidates)."""

    def __init__(self, channels: int = 6, seed: int = 0, *, plain: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.cells = nn.ModuleList(Cell(channels) for _ in range(2))
        self.head = nn.Linear(channels, 10)
        alphas = torch.randn(3, len(OPS))
        self.alphas = alphas.requires_grad_() if plain else nn.Parameter(alphas)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.alphas.softmax(-1)
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x, shares)
        return self.head(x.mean((2, 3)))


def images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
