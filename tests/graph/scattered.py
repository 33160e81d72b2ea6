"""Tiny graph networks, registered like the structures: messages along edges are added up at computed places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.graph.structure import Structure, into

SCATTERED: list[Structure] = []
NODES = (1, 6, 12)
SOURCES, TARGETS = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2]), torch.tensor([1, 2, 3, 4, 5, 0, 3, 5])

scattered = into(SCATTERED)


class GraphNet(nn.Module):
    """Two layers; after each, every node gets the sum of what its neighbours send."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.b((x + self.spread(x)).relu())
        return self.c(self.spread(x).relu())

    def spread(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@scattered(free=2, shape=NODES)
class IndexAdded(GraphNet):
    def spread(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(1, TARGETS, x[:, SOURCES])


@scattered(free=2, shape=NODES)
class IndexAddedInPlace(GraphNet):
    def spread(self, x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[0], 6, x.shape[2])
        out.index_add_(1, TARGETS, x[:, SOURCES])
        return out


@scattered(free=2, shape=NODES)
class ScatterAdded(GraphNet):
    """As torch_scatter and PyTorch Geometric broadcast the places."""

    def spread(self, x: Tensor) -> Tensor:
        sent = x[:, SOURCES]
        return torch.zeros_like(x).scatter_add(1, TARGETS.view(1, -1, 1).expand_as(sent), sent)


@scattered(free=2, shape=NODES)
class ScatterReduced(GraphNet):
    def spread(self, x: Tensor) -> Tensor:
        sent = x[:, SOURCES]
        out = x.new_zeros(x.shape[0], 6, x.shape[2])
        return out.scatter_reduce(1, TARGETS.view(1, -1, 1).expand_as(sent), sent, "amax", include_self=False)


@scattered(free=2, shape=NODES)
class Overwritten(GraphNet):
    def spread(self, x: Tensor) -> Tensor:
        return x.index_copy(1, torch.tensor([0, 3]), 2 * x[:, [1, 2]]).index_fill(1, torch.tensor([4]), 0.5)


@scattered(free=1, shape=NODES, reason="picks among these channels by number")
class AlongTheChannels(GraphNet):
    def spread(self, x: Tensor) -> Tensor:
        return x if x.shape[2] < 9 else x.index_fill(2, torch.tensor([4]), 0.5)
