"""Nets of mixed operations in a row, and tasks to score them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.recognise import recognise


class Edges(nn.Module):
    """Mixed operations in a row, uniform or softmax-mixed; what it ends with is `head`."""

    def __init__(self, edges: list[list[nn.Module]], head: nn.Module, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.edges = nn.ModuleList(nn.ModuleList(ops) for ops in edges)
        self.alphas = nn.ParameterList(nn.Parameter(torch.zeros(len(ops))) for ops in edges)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for edge, alpha in zip(self.edges, self.alphas, strict=True):
            x = sum(share * op(x) for share, op in zip(alpha.softmax(0), edge, strict=True))
        return self.head(x)


def structure_of(net: Edges, example: Tensor, names: tuple[str, ...]):
    return recognise(
        net, example, None, lambda place: f"edge{place.index}", lambda place: net.alphas[place.index], names, None
    )


def task_of(structure, data=(), train=None, seed=0) -> ScoringTask:
    return ScoringTask.on_copy(structure, list(data if train is None else train), list(data), seed)
