"""Candidates, mixtures and nets that differ from the usual ones: own weights, odd shapes, other rules of mixing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune import Supernet
from nasprune.supernet.counting import count_module


class Own(nn.Module):
    """A stem, three edges in a chain and a head. alphas: a parameter for each edge."""

    def __init__(self, candidates, channels: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.edges = nn.ModuleList(nn.ModuleList(candidates()) for _ in range(3))
        self.alphas = nn.ParameterList(torch.randn(len(edge)) for edge in self.edges)
        self.head = nn.Linear(channels, 10)

    def share(self, alpha: Tensor) -> Tensor:
        return alpha.softmax(0)

    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(shares, edge, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for alpha, edge in zip(self.alphas, self.edges, strict=True):
            x = self.mix(edge, self.share(alpha), x)
        return self.head(x.mean((2, 3)))


def known(edge) -> Tensor:
    """`weights=` of `Own`."""
    return edge.net.alphas[edge.index]


def example(size: int = 8) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


class Kernel(nn.Module):
    """A convolution whose `repr` says nothing of its size."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, kernel, kernel) / channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Repeated(Kernel):
    """Its setting is a plain attribute, and decides how often the convolution runs."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__(channels, 3)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = super().forward(x)
        return x


@pytest.mark.parametrize(
    "candidates",
    [
        lambda: [Kernel(8, 1), Kernel(8, 3), Kernel(8, 5), nn.Identity()],
        lambda: [Repeated(8, 1), Repeated(8, 2), nn.Identity()],
    ],
)
def test_candidates_that_look_alike_have_their_own_prices(candidates):
    whole = Supernet.from_model(Own(candidates).eval(), example(), weights=known)
    costs = whole.structure.prices.of_choice(whole.choices[0])
    assert len({cost.fvcore for cost in costs}) == len(costs)
    trimmed = whole.trim("60%", keep_max=1)
    assert trimmed.report.after == count_module(trimmed.model, (1, 3, 8, 8))
