"""A small supernet that has what scorers of operations trip over: tied places, `none`, skips, pools, noise, dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nasprune.supernet.find.choices import Place
from nasprune.supernet.genotype.operations import OPERATIONS
from nasprune.supernet.structure.recognise import recognise
from nasprune.supernet.structure.structure import Structure

INPUT = (3, 8, 8)
CLASSES = 4
CELL = (
    ("none", "skip_connect", "nor_conv_3x3", "avg_pool_3x3"),
    ("skip_connect", "nor_conv_1x1", "noise"),
)


class SampleSupernet(nn.Module):
    """Two cells of two edges in a row, edges mixed by the softmax of parameters that cells share; logits (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(INPUT[0], 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
            self.cells = nn.ModuleList(nn.ModuleList(_edge(ops) for ops in CELL) for _ in range(2))
            self.alphas = nn.ParameterList(nn.Parameter(0.5 * torch.randn(len(ops))) for ops in CELL)
            self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for cell in self.cells:
            assert isinstance(cell, nn.ModuleList)
            for edge, alpha in zip(cell, self.alphas, strict=True):
                assert isinstance(edge, nn.ModuleList)
                pairs = zip(alpha.softmax(0), edge, strict=True)
                x = torch.stack([share * op(x) for share, op in pairs]).sum(0)
        logits: Tensor = self.head[2](self.head[:2](x).mean((2, 3)))
        return logits


def sample_structure(net: SampleSupernet) -> Structure:
    """The sample with its two choices, "edge0" and "edge1", each at two places."""

    def names(place: Place) -> Sequence[str]:
        return CELL[place.index % 2]

    def weights(place: Place) -> Tensor:
        found: Tensor = net.alphas[place.index % 2]
        return found

    example = torch.randn(4, *INPUT, generator=torch.Generator().manual_seed(0), device="cpu")
    return recognise(net, example, None, lambda place: f"edge{place.index % 2}", weights, names, None)


def attachments(net: nn.Module) -> list[tuple[object, ...]]:
    """Per module: its mode, its numbers of hooks, and the names of what hangs on it."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (module.training, *(len(getattr(module, name)) for name in hooks), sorted(vars(module)))
        for module in net.modules()
    ]


def _edge(ops: Sequence[str]) -> nn.ModuleList:
    return nn.ModuleList(OPERATIONS[name](8, 1, True) for name in ops)
